"""What each method keeps and drops of hand-made samples, whatever their order and whatever the answers are called."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmupt.baselines.selection import (
    Sample,
    SelectedResponse,
    agreeing,
    believed,
    best_and_worst,
    description_pair,
    different_answers,
    mean_points,
    right,
    share_of_yes,
)
from verl_ext.votes import VoteOptions


def group(*answers: str | None) -> list[Sample]:
    return [Sample(number, f"response {number}", answer) for number, answer in enumerate(answers)]


def numbers(kept: Sequence[SelectedResponse]) -> list[int]:
    return [one.sample.number for one in kept]


def test_rejection_sampling_keeps_what_is_right_by_label_however_it_is_written() -> None:
    kept = right(group("1/2", "0.5", "2", r"\frac{1}{2}", None), "0.50")
    assert numbers(kept) == [0, 1, 3] and {one.score for one in kept} == {1.0}


def test_rejection_sampling_keeps_the_letter_of_an_option_for_its_text() -> None:
    assert numbers(right(group("B", "7", "C"), "B", choices=["5", "7", "9"])) == [0, 1]


def test_rejection_sampling_keeps_nothing_where_no_truth_is_known() -> None:
    assert right(group("1", "1"), None) == []


def test_lmsi_keeps_every_response_that_agrees_with_the_majority() -> None:
    # As texts, three times "3" would win against 1/2, \frac{1}{2}, 0.5 and 0.50.
    kept = agreeing(group("3", "1/2", "3", r"\frac{1}{2}", "0.5", "3", None, "0.50"))
    assert numbers(kept) == [1, 3, 4, 7] and {one.score for one in kept} == {0.5}


@pytest.mark.parametrize(("confidence", "kept"), [(0.5, [0, 1]), (0.51, [])])
def test_lmsi_drops_a_majority_below_the_confidence(confidence: float, kept: list[int]) -> None:
    assert numbers(agreeing(group("3", "3", "4", None), VoteOptions(min_share=confidence))) == kept


@pytest.mark.parametrize("answers", [("1", "1", "2", "2"), ("1", "2", "3"), (None, None), ("1", None), ()])
def test_lmsi_learns_nothing_from_a_tie_a_lone_answer_or_none(answers: tuple[str | None, ...]) -> None:
    assert agreeing(group(*answers)) == []


def test_lmsi_keeps_or_drops_whatever_a_soft_vote_would_reward() -> None:
    assert numbers(agreeing(group("1", "1", "2"), VoteOptions(reward="soft"))) == [0, 1]


def test_srlm_takes_the_best_and_the_worst_response_of_its_judge() -> None:
    pair = best_and_worst(group("1", "2", "3", "4"), {0: 2.0, 1: 4.5, 2: 0.5, 3: 4.0})
    assert pair is not None
    assert (pair.chosen.sample.number, pair.chosen.score) == (1, 4.5)
    assert (pair.rejected.sample.number, pair.rejected.score) == (2, 0.5)


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        (("1", "2"), {0: 3.0, 1: 3.0}),
        (("1", "2"), {0: 3.0, 1: None}),
        (("1", None), {0: 3.0, 1: 0.0}),
        ((None, None), {0: 3.0, 1: 0.0}),
        (("1", "2"), {}),
        ((), {}),
    ],
)
def test_srlm_makes_no_pair_of_equal_scores_or_of_responses_without_answer_or_score(answers, scores) -> None:
    assert best_and_worst(group(*answers), scores) is None


def test_genixer_keeps_what_it_believes_by_more_than_the_threshold() -> None:
    samples = group("1", "2", "3", None, "4")
    kept = believed(samples, {0: 0.9, 1: 0.7, 2: 0.75, 3: 1.0, 4: None}, min_yes=0.7)
    assert [(one.sample.number, one.score) for one in kept] == [(0, 0.9), (2, 0.75)]


def test_stic_prefers_the_good_description() -> None:
    pair = description_pair("three bars : red 3 .", " three bars : blue 3 . ")
    assert pair is not None
    assert (pair.chosen.sample.response, pair.rejected.sample.response) == (
        "three bars : red 3 .",
        "three bars : blue 3 .",
    )


@pytest.mark.parametrize(("good", "bad"), [("a bar .", "a  bar ."), ("", "a bar ."), ("a bar .", " \n")])
def test_stic_makes_no_pair_of_descriptions_that_are_equal_or_empty(good: str, bad: str) -> None:
    assert description_pair(good, bad) is None


def test_equal_answers_are_represented_by_one() -> None:
    answers = different_answers(group("1/2", None, "0.5", "1/2", "7"))
    assert answers == {0: "1/2", 2: "1/2", 3: "1/2", 4: "7"}


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        ("Score: 4", 4.0),
        ("It would score: 2 if ... \n**Score:** 3.5", 3.5),
        ("score = 0/5", 0.0),
        ("Score: 5.", 5.0),
        ("Score: 50", None),
        ("Score: <total points>", None),
        ("4", None),
        ("", None),
    ],
)
def test_points_are_read_where_a_judge_gives_them(reply: str, points: float | None) -> None:
    assert mean_points([reply]) == points


def test_the_judge_that_gives_no_points_does_not_count() -> None:
    assert mean_points(["Score: 1", "I cannot say.", "Score: 4"]) == 2.5


def test_a_reply_that_says_neither_yes_nor_no_does_not_say_yes() -> None:
    assert share_of_yes(["yes", "No.", "maybe", "3 - 3 = 0 . yes"]) == 0.5
    assert share_of_yes([]) is None


ANSWERS = st.lists(st.sampled_from(["1", "1.0", "2", "3", None]), max_size=10)
SCORES = st.lists(st.sampled_from([None, 0.0, 0.5, 0.75, 1.0]), min_size=10, max_size=10)


@given(ANSWERS, SCORES, st.randoms(use_true_random=False))
def test_the_order_of_responses_decides_nothing(answers, scores, random) -> None:
    samples, by_number = group(*answers), dict(enumerate(scores))
    shuffled = random.sample(samples, len(samples))
    assert right(shuffled, "1") == right(samples, "1")
    assert agreeing(shuffled) == agreeing(samples)
    assert best_and_worst(shuffled, by_number) == best_and_worst(samples, by_number)
    assert believed(shuffled, by_number, 0.7) == believed(samples, by_number, 0.7)
    assert different_answers(shuffled) == different_answers(samples)


@given(ANSWERS, SCORES, st.permutations(["1", "2", "3"]))
def test_what_answers_are_called_decides_nothing(answers, scores, names) -> None:
    new = {"1": names[0], "1.0": f"{names[0]}.0", "2": names[1], "3": names[2], None: None}
    samples, renamed = group(*answers), group(*(new[answer] for answer in answers))
    by_number = dict(enumerate(scores))
    assert numbers(right(renamed, new["1"])) == numbers(right(samples, "1"))
    assert numbers(agreeing(renamed)) == numbers(agreeing(samples))
    assert numbers(believed(renamed, by_number, 0.7)) == numbers(believed(samples, by_number, 0.7))
    pair, of_renamed = best_and_worst(samples, by_number), best_and_worst(renamed, by_number)
    assert (of_renamed and numbers(of_renamed)) == (pair and numbers(pair))


@given(ANSWERS, SCORES)
def test_nothing_without_an_answer_is_ever_kept(answers, scores) -> None:
    samples, by_number = group(*answers), dict(enumerate(scores))
    kept = [*right(samples, "1"), *agreeing(samples), *believed(samples, by_number, 0.7)]
    kept += best_and_worst(samples, by_number) or ()
    assert all(one.sample.answer is not None for one in kept)
