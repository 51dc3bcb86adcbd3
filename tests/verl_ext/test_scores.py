"""Scores, checked against hand-computed values and brute force over all subsets."""

from collections.abc import Callable
from itertools import combinations
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.answers import Comparison
from verl_ext.scores import Score, average, maj_at_k, mean_at_k, pass_at_k


def table(responses: int) -> st.SearchStrategy[list[list[bool]]]:
    return st.lists(st.lists(st.booleans(), min_size=responses, max_size=responses), min_size=2, max_size=5)


def test_with_options_a_letter_equals_its_text() -> None:
    answers, truths, choices = [["A", "5 cm", "6 cm"], ["A", "5 cm", "(A)"]], ["5 cm", "A"], [["5 cm", "6 cm"], None]
    assert maj_at_k(answers, truths, choices=choices).per_question == (1.0, 1.0)
    assert maj_at_k(answers, truths).per_question[0] == 0.0


def test_mean_at_k_averages_within_questions_and_its_standard_error_is_over_questions() -> None:
    score = mean_at_k([[True, True], [True, False], [False, False], [False, False]])
    assert score.value == pytest.approx(0.375)
    # The four questions deviate by .625, .125, -.375, -.375: variance .6875 / 3.
    assert score.standard_error == pytest.approx(sqrt(0.6875 / 3) / 2)
    assert score.questions == 4


def test_greedy_accuracy_is_mean_at_k_with_one_response() -> None:
    score = mean_at_k([[True], [False], [True], [True]])
    assert score.value == 0.75
    assert score.standard_error == pytest.approx(sqrt(0.75 * 0.25 / 3))  # binomial, with n - 1


def test_maj_at_k_judges_the_pseudo_label_and_counts_ties_as_wrong() -> None:
    answers = [
        ["1", "1", "2", None],  # elects the truth
        ["1", "1", "1", "2"],  # elects another answer
        ["1", "1", "2", "2"],  # ties, with the truth among the tied answers
        ["1", None, None, None],  # elects no answer with a single vote, although it is the truth
    ]
    score = maj_at_k(answers, ["1", "2", "1", "1"])
    assert score.per_question == (1.0, 0.0, 0.0, 0.0)
    assert score.value == 0.25
    assert score.standard_error == pytest.approx(0.25)


@given(table(6), st.integers(min_value=1, max_value=6))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_response(correct: list[list[bool]], k: int) -> None:
    for question, value in zip(correct, pass_at_k(correct, k).per_question, strict=True):
        subsets = list(combinations(question, k))
        assert value == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))


@given(table(4))
def test_pass_at_1_is_mean_at_k_and_pass_at_n_is_any(correct: list[list[bool]]) -> None:
    assert pass_at_k(correct, 1).per_question == pytest.approx(mean_at_k(correct).per_question)
    assert pass_at_k(correct, 4).per_question == tuple(float(any(question)) for question in correct)


def test_a_difference_pairs_the_questions() -> None:
    before, after = Score((0.0, 0.5, 1.0)), Score((0.25, 0.75, 1.25))
    difference = after - before
    assert difference.value == pytest.approx(0.25)
    # Every question gained the same, so the difference is certain although both scores are not.
    assert difference.standard_error == pytest.approx(0.0, abs=1e-12)
    assert before.standard_error > 0.2


def test_runs_are_averaged_question_by_question() -> None:
    score = average([Score((0.0, 1.0, 1.0)), Score((1.0, 1.0, 0.0))])
    assert score.per_question == (0.5, 1.0, 0.5)


ANSWERS = [["1", "1"], ["2", "2"]]
CORRECT = [[True, False], [True, True]]
TWO, THREE = Score((0.0, 1.0)), Score((0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("score", "arguments", "message"),
    [
        (mean_at_k, ([[True, False]],), "at least two questions, got 1"),
        (mean_at_k, ([],), "same number of responses"),
        (mean_at_k, ([[], []],), "same number of responses"),
        (pass_at_k, ([[True], [True, False]], 1), "same number of responses"),
        (pass_at_k, (CORRECT, 0), "from 1 to the number of responses per question, 2, got 0"),
        (pass_at_k, (CORRECT, 3), "from 1 to the number of responses per question, 2, got 3"),
        (maj_at_k, ([["1"], ["2"]], ["1", "2"]), "at least two responses"),
        (maj_at_k, (ANSWERS, ["1"]), "2 questions have 1 ground truths"),
        (maj_at_k, (ANSWERS, ["1", "2"], Comparison(), [None]), "2 ground truths and 1 lists of options"),
        (Score.__sub__, (TWO, THREE), "got 2 and 3"),
        (average, ([],), "an average needs the same questions"),
        (average, ([TWO, THREE],), "an average needs the same questions"),
    ],
)
def test_inputs_of_the_wrong_shape_are_refused(score: Callable[..., Score], arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(*arguments)
