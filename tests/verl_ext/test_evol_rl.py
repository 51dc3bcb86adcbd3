"""EVOL-RL rewards the majority, and within majority and minority the novel responses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.rewards.evol_rl import EvolRlReward
from verl_ext.rewards.group_reward import VotedGroup
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.votes import vote


def rewards(answers: list[str | None], embeddings: list[list[float]]) -> list[float]:
    group = VotedGroup([], answers, vote(answers), embeddings=np.array(embeddings, dtype=np.float64))
    return list(EvolRlReward(RewardSettings()).rewards(group))


def test_novelty_combines_mean_similarity_within_the_side_and_largest_similarity() -> None:
    # Similarities: 1-2 0.6, 1-3 0, 1-4 0.8, 2-3 0.8, 2-4 0.96, 3-4 0.6. Novelty of 1: 1 - 0.15 - 0.4 = 0.45,
    # of 2: 1 - 0.35 - 0.48 = 0.17, of 3: 1 - 0.2 - 0.4 = 0.4.
    answers: list[str | None] = ["1", "1", "1", "2"]
    embeddings = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]]
    assert rewards(answers, embeddings) == pytest.approx([1.0, 0.5, 0.5 + 0.5 * 0.23 / 0.28, -0.5])


def test_equal_responses_get_the_middle_of_their_side() -> None:
    same = [[1.0, 2.0]] * 6
    assert rewards(["1", "1", "1", "1", "2", "3"], same) == [0.75] * 4 + [-0.75] * 2


def test_a_minority_of_one_is_punished_least_and_a_response_without_an_answer_most() -> None:
    assert rewards(["1", "1", "2", None], [[1, 0], [0, 1], [1, 1], [1, 0]])[2:] == [-0.5, -1.0]


@pytest.mark.parametrize("answers", [["1", "2"], ["1", "1", "2", "2"], [None, None, "1"], [None, None]])
def test_a_group_that_elects_no_answer_has_equal_rewards(answers: list[str | None]) -> None:
    embeddings = [[float(number), 1.0] for number in range(len(answers))]
    assert rewards(answers, embeddings) == [-1.0] * len(answers)


def test_negative_similarity_counts_as_zero() -> None:
    # The cosine of the first two is -1, which counts as 0.
    assert rewards(["1", "1", "1"], [[1, 0], [-1, 0], [0, 1]]) == [0.75] * 3


@given(
    st.lists(st.tuples(st.sampled_from(["1", "2", None]), st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=10)
)
def test_no_minority_is_rewarded_and_no_majority_punished(group: list[tuple[str | None, float, float]]) -> None:
    answers = [answer for answer, _, _ in group]
    label = vote(answers).pseudo_label
    for answer, reward in zip(answers, rewards(answers, [[x, y] for _, x, y in group]), strict=True):
        if label is None or answer is None:
            assert reward == -1
        else:
            assert 0.5 <= reward <= 1 if answer == label else -1 <= reward <= -0.5
