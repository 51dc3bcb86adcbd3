"""The metrics of a step say what its votes were."""

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
    """A group under the default vote, of which the first `trained` responses are trained on."""
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


def test_a_step_is_averaged_over_its_groups_and_its_surviving_responses() -> None:
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


def test_truth_where_known_judges_pseudo_labels_and_rewards() -> None:
    metrics = vote_metrics([AGREED, MISLED, TIED, UNANIMOUS], expected_responses=11)
    # Of the groups with a truth, AGREED and MISLED elected a pseudo-label, and only AGREED the true one.
    assert metrics["vote/label_accuracy"] == 0.5
    # AGREED rewards all 4 as the truth would, MISLED none of 3, TIED 1 of 2.
    assert metrics["vote/reward_accuracy"] == pytest.approx(5 / 9)


def test_without_any_truth_no_accuracy_is_claimed() -> None:
    metrics = vote_metrics([UNANIMOUS, SILENT], expected_responses=4)
    assert not [name for name in metrics if "accuracy" in name]


def test_all_that_voted_are_counted_where_fewer_are_trained_on() -> None:
    metrics = vote_metrics([group(["7", "3", "7", "7", None], truth="7", trained=2)], expected_responses=6)
    assert metrics["vote/majority_ratio"] == 0.6
    assert metrics["vote/distinct_answers"] == 2
    assert metrics["vote/no_answer_rate"] == 0.2
    assert metrics["vote/failed_responses"] == 1
    assert metrics["vote/zero_advantage_rate"] == 0
    assert metrics["vote/reward_accuracy"] == 1
    # The trained ones were rewarded alike.
    assert vote_metrics([group(["7", "7", "3"], trained=2)], 3)["vote/zero_advantage_rate"] == 1


def test_a_soft_reward_is_as_accurate_as_it_is_near_to_that_of_the_truth() -> None:
    soft = group(["7", "7", "3", None], truth="7", rewards=[0.5, 0.5, 0.25, 0.0])
    assert vote_metrics([soft], 4)["vote/reward_accuracy"] == pytest.approx(1 - (0.5 + 0.5 + 0.25 + 0.0) / 4)


def test_a_reward_of_another_range_claims_no_accuracy() -> None:
    metrics = vote_metrics([group(["7", "7"], truth="7", rewards=[-0.5, -0.1])], 2)
    assert "vote/reward_accuracy" not in metrics and metrics["vote/label_accuracy"] == 1
