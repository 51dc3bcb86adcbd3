"""SCRL rewards clear majorities and punishes rare answers about which the policy is unsure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.rewards.group_reward import VotedGroup
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.rewards.scrl import ScrlReward
from verl_ext.votes import vote


def rewards(answers: list[str | None], entropies: list[float] | None = None) -> list[float]:
    log_probs = [[-entropy, -entropy] for entropy in entropies or [1.0] * len(answers)]
    return list(ScrlReward(RewardSettings()).rewards(VotedGroup([], answers, vote(answers), log_probs=log_probs)))


def test_a_majority_of_half_with_a_clear_margin_is_rewarded() -> None:
    assert rewards(["1", "1", "1", "2", "3"]) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert rewards(["1", "1"]) == [1.0, 1.0]


@pytest.mark.parametrize(
    "answers",
    [
        # A share of 0.4; a margin of 0; a margin of 0.1.
        ["1", "1", "2", "3", "4"],
        ["1", "1", "2", "2"],
        ["1"] * 11 + ["2"] * 9,
    ],
)
def test_no_answer_is_rewarded_with_less_than_half_or_without_a_clear_margin(answers: list[str | None]) -> None:
    assert set(rewards(answers)) == {0.0}


def test_a_rare_answer_is_punished_only_if_the_policy_is_unsure_about_it() -> None:
    answers: list[str | None] = ["1"] * 6 + ["2", "3"]
    assert rewards(answers, [1.0] * 6 + [2.0, 0.5]) == [1.0] * 6 + [-1.0, 0.0]
    # Entropy equal to that of the group counts as unsure.
    assert rewards(answers) == [1.0] * 6 + [-1.0, -1.0]


def test_responses_without_an_answer_are_punished_and_count_in_the_total() -> None:
    assert rewards([None, "1", "1", None, "1"]) == [-1.0, 1.0, 1.0, -1.0, 1.0]
    assert rewards([None, None, None, "1", "1"]) == [-1.0, -1.0, -1.0, 0.0, 0.0]


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.floats(0, 5)), min_size=1, max_size=12))
def test_rewards_do_not_depend_on_the_order_of_responses(responses: list[tuple[str | None, float]]) -> None:
    answers, entropies = [answer for answer, _ in responses], [entropy for _, entropy in responses]
    forwards, backwards = rewards(answers, entropies), rewards(answers[::-1], entropies[::-1])
    by_answer = {answer: reward for answer, reward in zip(answers, forwards, strict=True)}
    assert {answer: reward for answer, reward in zip(answers[::-1], backwards, strict=True)} == by_answer
    assert set(forwards) <= {-1.0, 0.0, 1.0}
