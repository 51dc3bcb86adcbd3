"""Whatever an answer is, it is read, compared and extracted without an error, and twice to the same end."""

import string
import time
from random import Random

import pytest

from benchmarks.hostile_answers import damaged, hostile_answers
from verl_ext.answers import canonical, classify, equivalent, extract_answer
from verl_ext.answers.answer_keys import answer_key, is_empty

ANSWERS = hostile_answers(2_000, seed=1)


def test_hostile_answers_have_keys_which_are_the_same_when_read_again() -> None:
    keys = [canonical(answer) for answer in ANSWERS]
    answer_key.cache_clear()
    assert [canonical(answer) for answer in ANSWERS] == keys


@pytest.mark.parametrize("answer", ["(a", "(a, b", "b, " * 300, "2 and 3/4 and (", "(ii", "5 km (5000 m"])
def test_what_only_begins_like_options_or_amounts_is_compared_as_text(answer: str) -> None:
    assert canonical(answer).is_words


def test_hostile_answers_equal_themselves_and_the_order_of_two_does_not_matter() -> None:
    rng = Random(1)
    for answer in ANSWERS[::10]:
        pair = [answer, damaged(answer, rng)]
        first, second = classify(pair), classify(pair[::-1])
        assert equivalent(answer, answer) != is_empty(answer)
        assert first.answers == second.answers


def test_hostile_answers_are_found_in_their_boxes_or_not_at_all() -> None:
    for answer in ANSWERS:
        found = extract_answer(rf"so \boxed{{{answer}}}")
        joined = "boxed" in answer or "fbox" in answer
        assert found is None or found in answer or joined or answer.count("}") != answer.count("{")


_LETTERS = string.ascii_letters


@pytest.mark.parametrize(
    "terms",
    [
        [rf"\sin({letter}/7)^{{1/3}}" for letter in _LETTERS[:10]],
        [rf"\sin({letter}/7)^{{1/3}}" for letter in _LETTERS],
        [rf"\arcsin({letter}+i)" for letter in _LETTERS],
        [rf"\binom{{{letter}}}{{{letter}+x}}" for letter in _LETTERS[:4]],
        [rf"\binom{{{letter}}}{{{letter}+x}}" for letter in _LETTERS],
        [r"(\sin x+\cos y)^{12}"],
    ],
)
def test_expressions_that_agree_at_all_points_are_compared_within_bounded_work(terms: list[str]) -> None:
    body = "+".join(terms)
    start = time.process_time()
    equal = equivalent(body, rf"\frac{{{body}}}{{\sin^2 x+\cos^2 x}}")
    assert time.process_time() - start < 5
    # What would take longer is not compared, and different.
    assert equal or len(canonical(body).text) > 200
