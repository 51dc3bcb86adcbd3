"""Whatever an answer is, it is read, compared and extracted without an error, and twice to the same end."""

from random import Random

from benchmarks.hostile_answers import damaged, hostile_answers
from verl_ext.answers import canonical, classify, equivalent, extract_answer
from verl_ext.answers.answer_keys import _answer_key, is_empty

ANSWERS = hostile_answers(2_000, seed=1)


def test_hostile_answers_have_keys_which_are_the_same_when_read_again() -> None:
    keys = [canonical(answer) for answer in ANSWERS]
    _answer_key.cache_clear()
    assert [canonical(answer) for answer in ANSWERS] == keys


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
