"""The metrics of a step say what its votes were."""

import pytest

from verl_ext.votes.metrics import ScoredGroup, vote_metrics

AGREED = ScoredGroup(["7", "7", "3", None], [1.0, 1.0, 0.0, 0.0], "7", 0.5, False, 0.25, truth="7")
MISLED = ScoredGroup(["4", "4", "5"], [1.0, 1.0, 0.0], "4", 2 / 3, False, 0.25, truth="5")
UNANIMOUS = ScoredGroup(["1", "1"], [1.0, 1.0], "1", 1.0, False, 0.0)
TIED = ScoredGroup(["1", "2"], [0.0, 0.0], None, 0.5, True, 0.0, truth="1")
SILENT = ScoredGroup([None, None], [0.0, 0.0], None, 0.0, False, 0.0)
LONE = ScoredGroup(["9"], [0.0], None, 1.0, False, 0.0)


def test_a_step_is_averaged_over_its_groups_and_its_surviving_responses() -> None:
    metrics = vote_metrics([AGREED, UNANIMOUS, TIED, SILENT], expected_responses=16)
    assert metrics["vote/share"] == pytest.approx((0.5 + 1.0 + 0.5 + 0.0) / 4)
    assert metrics["vote/distinct_answers"] == pytest.approx((2 + 1 + 2 + 0) / 4)
    assert metrics["vote/no_answer_rate"] == pytest.approx(3 / 10)
    assert metrics["vote/tie_rate"] == 0.25
    assert metrics["vote/uninformative_rate"] == 0.75
    assert metrics["vote/all_equal_rate"] == 0.25
    assert metrics["vote/all_none_rate"] == 0.25
    assert metrics["vote/failed_responses"] == 6
    assert metrics["vote/scoring_seconds"] == 0.25


def test_groups_with_fewer_than_two_answers_are_counted() -> None:
    assert vote_metrics([AGREED, SILENT, LONE], 12)["vote/too_few_answers_rate"] == pytest.approx(2 / 3)


def test_truth_where_known_judges_pseudo_labels_and_rewards() -> None:
    metrics = vote_metrics([AGREED, MISLED, TIED, UNANIMOUS], expected_responses=11)
    # Of the groups with a truth, AGREED and MISLED elected a pseudo-label, and only AGREED the true one.
    assert metrics["vote/pseudo_label_accuracy"] == 0.5
    # AGREED rewards all 4 as the truth would, MISLED none of 3, TIED 1 of 2.
    assert metrics["vote/reward_accuracy"] == pytest.approx(5 / 9)


def test_without_any_truth_no_accuracy_is_claimed() -> None:
    metrics = vote_metrics([UNANIMOUS, SILENT], expected_responses=4)
    assert not [name for name in metrics if "accuracy" in name]


def test_a_step_in_which_everything_failed_reports_only_that() -> None:
    assert vote_metrics([], expected_responses=8) == {"vote/failed_responses": 8.0}
