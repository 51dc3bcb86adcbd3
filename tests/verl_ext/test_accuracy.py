"""Reward workers compare the pseudo-label and the final rewards of a group with its ground truth."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_ext.answers import Comparison
from verl_ext.datasets.ground_truth import sidecar_of
from verl_ext.rewards import accuracy
from verl_ext.rewards.accuracy import AccuracyMeter
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy
from verl_ext.votes import vote
from verl_ext.votes.vote_record import VoteRecord

RECORD = VoteRecord(vote(["7", "7.0", "3", None]), 0.5)
TIED = VoteRecord(vote(["7", "7.0", "3", "3"]), 0.5)


def request(id_: str = "q1", own: str | None = None, record: VoteRecord = RECORD) -> AccuracyRequest:
    return AccuracyRequest(id_, own, ["7", "7.0", "3", None], [1.0, 1.0, 0.0, 0.0], None, record)


def measured(
    label_correct: bool | None, reward_accuracy: float | None, record: VoteRecord = RECORD, right: float = 0.5
) -> VoteRecord:
    accuracies = {"label_correct": label_correct, "ground_truth_ratio": right, "reward_accuracy": reward_accuracy}
    return replace(record, **accuracies)


def record_of(request: AccuracyRequest, meter: AccuracyMeter) -> VoteRecord:
    return meter.measure(request).record


@pytest.fixture
def meter(tmp_path: Path) -> AccuracyMeter:
    train = tmp_path / "train.parquet"
    pq.write_table(pa.table({"id": ["q1", "q2"], "answer": ["7", "3"]}), sidecar_of(train))
    return AccuracyMeter([train], Comparison())


def test_the_sidecar_takes_precedence_over_the_ground_truth_in_the_row(meter: AccuracyMeter) -> None:
    assert record_of(request("q1"), meter) == measured(True, 1.0)
    # Both rewarded answers are wrong, and the correct one is not rewarded.
    assert record_of(request("q2", own="7"), meter) == measured(False, 0.25, right=0.25)
    assert record_of(request("plain", own="7"), meter) == measured(True, 1.0)
    assert meter.measure(request("plain")) == GroupAccuracy(RECORD)


def test_the_result_has_the_ground_truth_and_the_correctness_of_each_answer(meter: AccuracyMeter) -> None:
    accuracy = meter.measure(request("q1"))
    assert accuracy.ground_truth == "7" and accuracy.correct == [True, True, False, False]


def test_responses_that_only_voted_are_compared_but_have_no_reward(meter: AccuracyMeter) -> None:
    accuracy = meter.measure(AccuracyRequest("q2", None, ["7", "7.0", "3", None], [1.0, 1.0], None, RECORD))
    assert accuracy.correct == [False, False, True, False]
    assert accuracy.record.reward_accuracy == 0.0


def test_a_group_without_a_pseudo_label_still_has_a_reward_accuracy(meter: AccuracyMeter) -> None:
    assert record_of(request(record=TIED), meter) == measured(None, 1.0, TIED)


@pytest.mark.parametrize(
    ("bounds", "rewards", "accuracy"),
    [
        # Of four responses, the first two are right.
        ((-1.0, 1.0), [1.0, 1.0, -1.0, -1.0], 1.0),
        ((-1.0, 1.0), [1.0, 0.0, 0.0, -1.0], 0.75),
        ((-1.0, 1.0), [0.5, 0.5, -0.5, -0.5], 0.75),
        # Rewards outside the bounds, or no bounds.
        ((-1.0, 1.0), [1.0, 1.0, -1.5, 0.0], None),
        ((0.0, 1.0), [1.0, 1.0, -0.5, 0.0], None),
        (None, [1.0, 1.0, 0.0, 0.0], None),
    ],
)
def test_rewards_are_scaled_by_their_bounds(
    bounds: tuple[float, float] | None, rewards: list[float], accuracy: float | None
) -> None:
    answers: list[str | None] = ["7", "7.0", "3", None]
    meter = AccuracyMeter([], Comparison(), bounds)
    request = AccuracyRequest("q1", "7", answers, rewards, None, RECORD)
    assert record_of(request, meter) == measured(True, accuracy)


def test_each_distinct_answer_is_compared_once(meter: AccuracyMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str | None] = []
    monkeypatch.setattr(accuracy, "correct", lambda answer, *rest: compared.append(answer) or False)
    answers: list[str | None] = ["7", "7", "3", None, None]
    meter.measure(AccuracyRequest("q1", None, answers, [0.0] * 5, None, RECORD))
    assert sorted(compared, key=str) == ["3", "7", None]


def test_an_unreadable_sidecar_keeps_a_reward_worker_from_starting(tmp_path: Path) -> None:
    train = tmp_path / "train.parquet"
    pq.write_table(pa.table({"id": ["q1", "q1"], "answer": ["7", "3"]}), sidecar_of(train))
    with pytest.raises(ValueError, match="contradicts"):
        AccuracyMeter([train], Comparison())
