"""Each baseline selects the expected samples, independently of their order and of the names of the answers."""

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
    """A group of samples with these answers."""
    return [Sample(number, f"response {number}", answer) for number, answer in enumerate(answers)]


def numbers(selected: Sequence[SelectedResponse]) -> list[int]:
    """The numbers of the selected samples."""
    return [response.sample.number for response in selected]


def test_rejection_sampling_keeps_answers_that_equal_the_label_in_any_notation() -> None:
    selected = right(group("1/2", "0.5", "2", r"\frac{1}{2}", None), "0.50")
    assert numbers(selected) == [0, 1, 3] and {response.score for response in selected} == {1.0}


def test_rejection_sampling_accepts_the_letter_and_the_text_of_an_option() -> None:
    assert numbers(right(group("B", "7", "C"), "B", choices=["5", "7", "9"])) == [0, 1]


def test_rejection_sampling_keeps_nothing_without_ground_truth() -> None:
    assert right(group("1", "1"), None) == []


def test_lmsi_keeps_every_response_that_agrees_with_the_majority() -> None:
    # Compared as strings, "3" would win with three votes: 1/2, \frac{1}{2}, 0.5 and 0.50 have one vote each.
    selected = agreeing(group("3", "1/2", "3", r"\frac{1}{2}", "0.5", "3", None, "0.50"))
    assert numbers(selected) == [1, 3, 4, 7] and {response.score for response in selected} == {0.5}


@pytest.mark.parametrize(("min_share", "expected"), [(0.5, [0, 1]), (0.51, [])])
def test_lmsi_drops_a_majority_below_the_minimum_share(min_share: float, expected: list[int]) -> None:
    assert numbers(agreeing(group("3", "3", "4", None), VoteOptions(min_share=min_share))) == expected


@pytest.mark.parametrize("answers", [("1", "1", "2", "2"), ("1", "2", "3"), (None, None), ("1", None), ()])
def test_lmsi_keeps_nothing_without_a_majority(answers: tuple[str | None, ...]) -> None:
    assert agreeing(group(*answers)) == []


def test_lmsi_keeps_only_the_majority_even_with_a_soft_vote() -> None:
    assert numbers(agreeing(group("1", "1", "2"), VoteOptions(reward="soft"))) == [0, 1]


def test_srlm_pairs_the_responses_with_the_highest_and_the_lowest_score() -> None:
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
def test_srlm_makes_no_pair_without_two_answers_of_different_scores(answers, scores) -> None:
    assert best_and_worst(group(*answers), scores) is None


def test_genixer_keeps_answers_whose_share_of_yes_exceeds_the_threshold() -> None:
    samples = group("1", "2", "3", None, "4")
    selected = believed(samples, {0: 0.9, 1: 0.7, 2: 0.75, 3: 1.0, 4: None}, min_yes=0.7)
    assert [(response.sample.number, response.score) for response in selected] == [(0, 0.9), (2, 0.75)]


def test_stic_prefers_the_good_description() -> None:
    pair = description_pair("three bars : red 3 .", " three bars : blue 3 . ")
    assert pair is not None
    assert (pair.chosen.sample.response, pair.rejected.sample.response) == (
        "three bars : red 3 .",
        "three bars : blue 3 .",
    )


@pytest.mark.parametrize(("good", "bad"), [("a bar .", "a  bar ."), ("", "a bar ."), ("a bar .", " \n")])
def test_stic_makes_no_pair_of_equal_or_empty_descriptions(good: str, bad: str) -> None:
    assert description_pair(good, bad) is None


def test_equal_answers_share_a_representative() -> None:
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
def test_points_are_parsed_from_the_reply_of_a_judge(reply: str, points: float | None) -> None:
    assert mean_points([reply]) == points


def test_replies_without_points_are_left_out_of_the_mean() -> None:
    assert mean_points(["Score: 1", "I cannot say.", "Score: 4"]) == 2.5


def test_a_reply_with_neither_yes_nor_no_counts_as_no() -> None:
    assert share_of_yes(["yes", "No.", "maybe", "3 - 3 = 0 . yes"]) == 0.5
    assert share_of_yes([]) is None


ANSWERS = st.lists(st.sampled_from(["1", "1.0", "2", "3", None]), max_size=10)
SCORES = st.lists(st.sampled_from([None, 0.0, 0.5, 0.75, 1.0]), min_size=10, max_size=10)


@given(ANSWERS, SCORES, st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_samples(answers, scores, random) -> None:
    samples, by_number = group(*answers), dict(enumerate(scores))
    shuffled = random.sample(samples, len(samples))
    assert right(shuffled, "1") == right(samples, "1")
    assert agreeing(shuffled) == agreeing(samples)
    assert best_and_worst(shuffled, by_number) == best_and_worst(samples, by_number)
    assert believed(shuffled, by_number, 0.7) == believed(samples, by_number, 0.7)
    assert different_answers(shuffled) == different_answers(samples)


@given(ANSWERS, SCORES, st.permutations(["1", "2", "3"]))
def test_selection_does_not_depend_on_the_names_of_answers(answers, scores, names) -> None:
    new_names = {"1": names[0], "1.0": f"{names[0]}.0", "2": names[1], "3": names[2], None: None}
    samples, renamed = group(*answers), group(*(new_names[answer] for answer in answers))
    by_number = dict(enumerate(scores))
    assert numbers(right(renamed, new_names["1"])) == numbers(right(samples, "1"))
    assert numbers(agreeing(renamed)) == numbers(agreeing(samples))
    assert numbers(believed(renamed, by_number, 0.7)) == numbers(believed(samples, by_number, 0.7))
    pair, renamed_pair = best_and_worst(samples, by_number), best_and_worst(renamed, by_number)
    assert (renamed_pair and numbers(renamed_pair)) == (pair and numbers(pair))


@given(ANSWERS, SCORES)
def test_samples_without_an_answer_are_never_selected(answers, scores) -> None:
    samples, by_number = group(*answers), dict(enumerate(scores))
    selected = [*right(samples, "1"), *agreeing(samples), *believed(samples, by_number, 0.7)]
    selected += best_and_worst(samples, by_number) or ()
    assert all(response.sample.answer is not None for response in selected)
