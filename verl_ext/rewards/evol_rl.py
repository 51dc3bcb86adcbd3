"""The reward `evol_rl`: rewards the majority, and novel responses within majority and minority.

EVOL-RL: Zhou et al. 2025, "Evolving Language Models without Labels", arXiv 2509.15194. Formula: the authors'
`verl/workers/reward_manager/semantic_novelty.py` (github.com/YujunZhou/EVOL-RL, 19896e0).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup

# Rewards of the least and the most novel response: of the majority, and of the minority.
MAJORITY = (0.5, 1.0)
MINORITY = (-1.0, -0.5)
# Smaller differences in novelty are rounding: even identical responses differ in the last digits.
RESOLUTION = 1e-6


@REWARDS.register
class EvolRlReward(GroupReward):
    """Majority for selection, novelty for variation.

    Differences from the authors' code:

    - A response is embedded as the mean of the trained model's input embeddings over its tokens. The authors query a
      Qwen3-Embedding-4B server with the text after `</think>`.
    - The vote determines the majority, with its tie rule and quorums. If it elects no answer, all rewards are -1 and
      all advantages 0. The authors then elect the answer that came first.
    - A response is invalid if it has no answer. The authors also reject boxes without a digit.
    """

    name = "evol_rl"
    bounds = (-1.0, 1.0)
    needs_embeddings = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return 0.5 to 1 in the majority, -1 to -0.5 in the minority, more for novel responses; -1 without an answer.

        Novelty is 1 minus the mean of two cosine similarities, each clipped at 0: the mean similarity to the other
        responses of the same side, and the largest similarity to any other response with an answer. Within a side,
        novelty is scaled so that the least and the most novel response get the limits of the side. If all are equally
        novel, they get the middle; a side with a single response gets the upper limit.
        """
        assert group.embeddings is not None
        rewards = [-1.0] * len(group.answers)
        valid = sorted(member for members in group.vote.classes for member in members)
        # Responses that agree with the pseudo-label.
        label = group.vote.pseudo_label
        majority = next((members for members in group.vote.classes if label in {group.answers[m] for m in members}), ())
        if len(valid) < 2 or not majority:
            return rewards
        similarity = _similarities(group.embeddings[valid])
        sides: list[list[int]] = [[], []]
        for place, member in enumerate(valid):
            sides[member not in majority].append(place)
        for side, (low, high) in zip(sides, (MAJORITY, MINORITY), strict=True):
            novelty = np.array([_novelty(similarity, place, side) for place in side])
            for place, scaled in zip(side, _scaled(novelty), strict=True):
                rewards[valid[place]] = low + (high - low) * float(scaled)
        return rewards


def _similarities(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine similarities of all pairs, clipped at 0, (n, n)."""
    norms = np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-8)
    similarities: NDArray[np.float64] = np.clip((embeddings / norms) @ (embeddings / norms).T, 0.0, 1.0)
    return similarities


def _novelty(similarity: NDArray[np.float64], place: int, side: Sequence[int]) -> float:
    others = np.delete(similarity[place], place)
    same_side = [similarity[place, other] for other in side if other != place]
    return float(1 - 0.5 * np.mean(same_side if same_side else others) - 0.5 * np.max(others))


def _scaled(novelty: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale novelties to 0 for the least and 1 for the most novel response."""
    if len(novelty) == 1:
        return np.ones(1)
    spread = np.ptp(novelty) if len(novelty) else 0.0
    return np.full(len(novelty), 0.5) if spread < RESOLUTION else (novelty - novelty.min()) / spread
