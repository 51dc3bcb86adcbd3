"""What the votes of a run did, by hand."""

from pathlib import Path

import pytest

from mmupt.training.vote_diagnostics import Election, Rate, diagnose, model_collapse_step, read_elections, render
from verl_ext.answers import Comparison
from verl_ext.rewards.accuracy import AccuracyMeter
from verl_ext.rewards.group_request import AccuracyRequest
from verl_ext.votes import vote as hold_vote
from verl_ext.votes.vote_files import GroupOnFile, VotedQuestion, VotedResponse, VoteFiles
from verl_ext.votes.vote_record import VoteRecord


def vote(
    step: int, id_: str, label: str | None, ratio: float, right: float | None = None, truth: str = "1"
) -> Election:
    correct = None if label is None or right is None else label == truth
    return Election(step, id_, label, ratio, correct, right)


VOTES = [
    # A right minority that dies out while the label stays wrong.
    vote(1, "a", "2", 0.5, 0.25),
    vote(3, "a", "2.0", 0.75, 0.25),
    vote(5, "a", "2", 1.0, 0.0),
    # One that is elected in the end, and a right label that is lost again.
    vote(1, "b", "3", 0.5, 0.25),
    vote(4, "b", "1", 0.75, 0.75),
    vote(6, "b", "3", 0.75, 0.25),
    # No majority first, a right one then.
    vote(2, "c", None, 0.25, 0.25),
    vote(5, "c", "1", 0.5, 0.5),
    # Voted on once.
    vote(2, "d", "1", 1.0, 1.0),
    # Without a ground truth.
    vote(1, "e", "8", 0.5),
    vote(3, "e", "9", 0.5),
]


def test_answers_that_are_spelled_differently_do_not_flip() -> None:
    found = diagnose(reversed(VOTES))
    assert found.elections == 11
    # a: no, no. b: yes, yes. e: yes. c has one label only.
    assert found.flips == Rate(3, 5)
    assert found.flips_from_right == Rate(1, 1)
    assert found.flips_from_wrong == Rate(1, 3)


def test_a_right_minority_has_died_out_if_the_last_vote_has_no_right_answer() -> None:
    # Of a, b and c, which had right answers that were not elected, a lost them.
    assert diagnose(VOTES).lost_minorities == Rate(1, 3)
    assert diagnose([vote(1, "x", "1", 1.0, 1.0), vote(2, "x", "2", 1.0, 0.0)]).lost_minorities == Rate(0, 0)


def test_calibration_holds_label_accuracy_against_the_majority_ratio() -> None:
    bins = diagnose(VOTES).calibration
    assert [(one.low, one.high, one.right) for one in bins] == [
        (0.4, 0.6, Rate(1, 3)),
        (0.6, 0.8, Rate(1, 3)),
        (0.8, 1.0, Rate(1, 2)),
    ]
    assert [one.majority_ratio for one in bins] == pytest.approx([0.5, 0.75, 1.0])


def test_the_collapse_step_is_the_first_below_one_percent() -> None:
    assert model_collapse_step({1: 0.5, 2: 0.01, 3: 0.009, 4: 0.5, 5: 0.0}) == 3
    assert model_collapse_step({1: 0.5}) is None and model_collapse_step({}) is None


def test_what_is_not_known_is_said() -> None:
    text = render(diagnose(VOTES[-2:]), {})
    assert (
        text.count("nothing to compare") == 3
        and "not known" in text
        and "100.0 % of 1" in text
        and "right labels" not in text
    )
    assert "step 3" in render(diagnose(VOTES), {1: 0.5, 3: 0.0})


def on_file(answers: list[str | None], truth: str | None) -> GroupOnFile:
    result = hold_vote(answers)
    request = AccuracyRequest("q", truth, answers, list(result.rewards), None, VoteRecord(result, 0.0))
    accuracy = AccuracyMeter([], Comparison()).measure(request)
    correct = accuracy.correct or [None] * len(answers)
    pairs = zip(answers, correct, strict=True)
    responses = [VotedResponse("so", answer, 0.0, True, is_correct) for answer, is_correct in pairs]
    return GroupOnFile(VotedQuestion("q", "how many ?", 1, None, truth, responses), accuracy.record, None)


def test_the_votes_on_file_are_read_in_the_order_of_steps(tmp_path: Path) -> None:
    files = VoteFiles(tmp_path / "votes", None)
    files.add(10, [on_file(["1", "2", "2", None], "1")])
    files.add(9, [on_file(["1", "1", "2"], None)])
    files.flush()
    assert read_elections(tmp_path / "votes") == [
        Election(9, "q", "1", 2 / 3, None, None, None),
        Election(10, "q", "2", 0.5, False, 0.25, None),
    ]
    assert read_elections(tmp_path / "nothing") == []
