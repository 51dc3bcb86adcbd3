"""The vote: who is elected, who is rewarded, and that no order, name or silence changes it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verl_ext.answers import extract_answer
from verl_ext.votes import vote

# Few different answers, so that majorities, ties and repetitions are common.
answers_strategy = st.lists(st.sampled_from([None, "1", "2", "3", "10"]), max_size=12)


def test_the_majority_answer_is_the_pseudo_label_and_rewards_those_that_gave_it() -> None:
    result = vote(["10", "7", "10", None, " 10 ", "7"])
    assert result.winner == "10"
    assert result.rewards == (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert result.classes == ((0, 2, 4), (1, 5))
    assert result.share == 3 / 6
    assert result.no_answer == 1
    assert result.distinct == 2
    assert result.informative
    assert not result.tied


def test_the_largest_class_wins_without_more_than_half_of_the_votes() -> None:
    assert vote(["1", "1", "2", "3", "10"]).winner == "1"


def test_a_tie_at_the_top_elects_and_rewards_nobody() -> None:
    result = vote(["2", "1", "1", "2", "3"])
    assert result.tied
    assert result.winner is None
    assert result.rewards == (0.0,) * 5
    assert result.share == 2 / 5
    assert result.classes == ((1, 2), (0, 3), (4,))
    assert not result.informative


def test_a_tie_below_the_top_is_no_tie() -> None:
    result = vote(["1", "1", "2", "3"])
    assert not result.tied
    assert result.winner == "1"


def test_when_all_answers_differ_the_first_response_is_not_rewarded() -> None:
    result = vote(["5", "6", "7", "8"])
    assert result.winner is None
    assert result.rewards == (0.0,) * 4


def test_a_single_answer_does_not_elect_itself() -> None:
    for answers in (["5"], ["5", None, None, None]):
        result = vote(answers)
        assert result.winner is None
        assert result.rewards == (0.0,) * len(answers)
        assert not result.tied
        assert result.share == 1 / len(answers)


def test_responses_without_a_box_never_vote_even_as_the_word_none() -> None:
    responses = ["I do not know", "None", "no box here", r"\boxed{5}", r"\boxed{5}"]
    result = vote([extract_answer(response) for response in responses])
    assert result.winner == "5"
    assert result.rewards == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert result.no_answer == 3


def test_a_group_without_any_answer_elects_nobody() -> None:
    for size in (0, 1, 8):
        result = vote([None] * size)
        assert result.winner is None
        assert result.rewards == (0.0,) * size
        assert result.classes == ()
        assert result.share == 0.0
        assert result.no_answer == size


def test_a_unanimous_group_is_rewarded_and_teaches_nothing() -> None:
    result = vote(["4"] * 8)
    assert result.rewards == (1.0,) * 8
    assert result.share == 1.0
    assert not result.informative


@given(answers_strategy, st.randoms(use_true_random=False))
def test_permuting_the_responses_permutes_the_rewards_and_changes_nothing_else(answers, random) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)
    original, permuted = vote(answers), vote([answers[i] for i in order])
    assert permuted.rewards == tuple(original.rewards[i] for i in order)
    assert (permuted.winner, permuted.share, permuted.tied) == (original.winner, original.share, original.tied)
    position = {old: new for new, old in enumerate(order)}
    assert permuted.classes == tuple(tuple(sorted(position[i] for i in members)) for members in original.classes)


@given(answers_strategy, st.permutations(["1", "2", "3", "10"]))
def test_renaming_the_answers_consistently_renames_the_winner_and_changes_no_reward(answers, names) -> None:
    renamed = dict(zip(["1", "2", "3", "10"], names, strict=True))
    original = vote(answers)
    result = vote([None if answer is None else renamed[answer] for answer in answers])
    assert result.rewards == original.rewards
    assert result.winner == (None if original.winner is None else renamed[original.winner])
    assert (result.share, result.tied) == (original.share, original.tied)
    assert sorted(result.classes) == sorted(original.classes)


@given(answers_strategy, st.integers(min_value=1, max_value=20))
def test_responses_without_an_answer_lower_the_share_and_never_change_the_winner(answers, silent) -> None:
    original, result = vote(answers), vote([*answers, *[None] * silent])
    assert result.winner == original.winner
    assert result.rewards == original.rewards + (0.0,) * silent
    assert result.share * len(result.rewards) == pytest.approx(original.share * len(answers))
    assert result.no_answer == original.no_answer + silent


@given(answers_strategy)
def test_the_rewarded_are_exactly_those_that_gave_the_strictly_most_frequent_answer(answers) -> None:
    result = vote(answers)
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    strict = [a for a, n in counts.items() if n >= 2 and all(n > m for b, m in counts.items() if b != a)]
    assert result.winner == (strict[0] if strict else None)
    assert result.rewards == tuple(float(answer in strict) for answer in answers)


@given(answers_strategy)
def test_classes_partition_the_responses_that_answer_by_falling_size(answers) -> None:
    result = vote(answers)
    assert sorted(i for members in result.classes for i in members) == [
        i for i, answer in enumerate(answers) if answer is not None
    ]
    assert all(len({answers[i] for i in members}) == 1 for members in result.classes)
    sizes = [len(members) for members in result.classes]
    assert sizes == sorted(sizes, reverse=True)


@given(answers_strategy)
def test_a_group_is_informative_where_some_but_not_all_are_rewarded(answers) -> None:
    assume(answers)
    result = vote(answers)
    assert result.informative == (0 < sum(result.rewards) < len(answers))
