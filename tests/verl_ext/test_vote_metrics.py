"""Metrics of a training step, computed from its votes."""

import pytest

from verl_ext.answers import Comparison
from verl_ext.rewards.accuracy import AccuracyMeter
from verl_ext.rewards.group_request import AccuracyRequest
from verl_ext.votes import vote
from verl_ext.votes.vote_metrics import TrainedGroup, vote_metrics
from verl_ext.votes.vote_record import VoteRecord


def group(
    answers: list[str | None],
    seconds: float = 0.0,
    truth: str | None = None,
    trained: int | None = None,
    rewards: list[float] | None = None,
) -> TrainedGroup:
    """A group under the default vote whose first `trained` responses are trained on."""
    result = vote(answers)
    rewards = list(rewards or result.rewards[:trained])
    request = AccuracyRequest("q", truth, list(answers), rewards, None, VoteRecord(result, seconds))
    return TrainedGroup(AccuracyMeter([], Comparison()).measure(request).record, rewards)


AGREED = group(["7", "7", "3", None], 0.25, truth="7")
MISLED = group(["4", "4", "5"], 0.25, truth="5")
UNANIMOUS = group(["1", "1"])
TIED = group(["1", "2"], truth="1")
SILENT = group([None, None])
LONE = group(["9"])


def test_metrics_are_averaged_over_groups_and_surviving_responses() -> None:
    metrics = vote_metrics([AGREED, UNANIMOUS, TIED, SILENT], expected_responses=16)
    assert metrics["vote/majority_ratio"] == pytest.approx((0.5 + 1.0 + 0.5 + 0.0) / 4)
    assert metrics["vote/distinct_answers"] == pytest.approx((2 + 1 + 2 + 0) / 4)
    assert metrics["vote/no_answer_rate"] == pytest.approx(3 / 10)
    assert metrics["vote/tie_rate"] == 0.25
    assert metrics["vote/zero_advantage_rate"] == 0.75
    assert metrics["vote/all_equal_rate"] == 0.25
    assert metrics["vote/all_none_rate"] == 0.25
    assert metrics["vote/failed_responses"] == 6
    assert metrics["vote/scoring_seconds"] == 0.25


def test_groups_with_fewer_than_two_answers_are_counted() -> None:
    assert vote_metrics([AGREED, SILENT, LONE], 12)["vote/too_few_answers_rate"] == pytest.approx(2 / 3)


def test_label_and_reward_accuracy_use_the_groups_with_a_ground_truth() -> None:
    metrics = vote_metrics([AGREED, MISLED, TIED, UNANIMOUS], expected_responses=11)
    # Of the groups with a ground truth, AGREED and MISLED elect a pseudo-label, and only that of AGREED is correct.
    assert metrics["vote/label_accuracy"] == 0.5
    # The ground truth would give the same reward to all 4 responses of AGREED, 0 of 3 of MISLED and 1 of 2 of TIED.
    assert metrics["vote/reward_accuracy"] == pytest.approx(5 / 9)


def test_without_ground_truth_there_is_no_accuracy() -> None:
    metrics = vote_metrics([UNANIMOUS, SILENT], expected_responses=4)
    assert not [name for name in metrics if "accuracy" in name]


def test_vote_metrics_count_all_voters_even_if_fewer_are_trained_on() -> None:
    metrics = vote_metrics([group(["7", "3", "7", "7", None], truth="7", trained=2)], expected_responses=6)
    assert metrics["vote/majority_ratio"] == 0.6
    assert metrics["vote/distinct_answers"] == 2
    assert metrics["vote/no_answer_rate"] == 0.2
    assert metrics["vote/failed_responses"] == 1
    assert metrics["vote/zero_advantage_rate"] == 0
    assert metrics["vote/reward_accuracy"] == 1
    # All trained responses got the same reward.
    assert vote_metrics([group(["7", "7", "3"], trained=2)], 3)["vote/zero_advantage_rate"] == 1


def test_the_accuracy_of_a_soft_reward_is_its_closeness_to_the_reward_of_the_ground_truth() -> None:
    soft = group(["7", "7", "3", None], truth="7", rewards=[0.5, 0.5, 0.25, 0.0])
    assert vote_metrics([soft], 4)["vote/reward_accuracy"] == pytest.approx(1 - (0.5 + 0.5 + 0.25 + 0.0) / 4)


def test_a_reward_of_another_range_has_no_accuracy() -> None:
    metrics = vote_metrics([group(["7", "7"], truth="7", rewards=[-0.5, -0.1])], 2)
    assert "vote/reward_accuracy" not in metrics and metrics["vote/label_accuracy"] == 1
