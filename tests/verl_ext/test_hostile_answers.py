"""Any answer can be read, compared and extracted without an error and with reproducible results."""

import string
import time
from random import Random

import pytest

from benchmarks.hostile_answers import damaged, hostile_answers
from verl_ext.answers import canonical, classify, equivalent, extract_answer
from verl_ext.answers.answer_keys import answer_key, is_empty

ANSWERS = hostile_answers(2_000, seed=1)


def test_hostile_answers_have_reproducible_keys() -> None:
    keys = [canonical(answer) for answer in ANSWERS]
    answer_key.cache_clear()
    assert [canonical(answer) for answer in ANSWERS] == keys


@pytest.mark.parametrize("answer", ["(a", "(a, b", "b, " * 300, "2 and 3/4 and (", "(ii", "5 km (5000 m"])
def test_text_that_only_starts_like_options_or_amounts_is_compared_as_text(answer: str) -> None:
    assert canonical(answer).is_words


def test_hostile_answers_equal_themselves_and_their_order_does_not_matter() -> None:
    rng = Random(1)
    for answer in ANSWERS[::10]:
        pair = [answer, damaged(answer, rng)]
        first, second = classify(pair), classify(pair[::-1])
        assert equivalent(answer, answer) != is_empty(answer)
        assert first.answers == second.answers


def test_hostile_answers_are_extracted_from_their_boxes_or_not_at_all() -> None:
    for answer in ANSWERS:
        extracted = extract_answer(rf"so \boxed{{{answer}}}")
        joined = "boxed" in answer or "fbox" in answer
        assert extracted is None or extracted in answer or joined or answer.count("}") != answer.count("{")


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
    # Longer expressions are not compared numerically and count as different.
    assert equal or len(canonical(body).text) > 200
