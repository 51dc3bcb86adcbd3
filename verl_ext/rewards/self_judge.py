"""The reward `self_judge`: agreement within the group, modulated by the judgement of a frozen copy of the model.

Self-Judge: Wu et al. 2026, "When Models Judge Themselves", arXiv 2603.21289. Formula: the authors'
`verl/workers/reward_manager/verifier.py` and `verl/utils/reward_score/major_vote_score.py`
(github.com/OPPO-Mente-Lab/LLM-Self-Judge, 8126f58), with the values of their example script.
"""

from collections.abc import Sequence
from math import exp

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup

# Above this share of the majority, agreement is 1 or 0.
HARD_SHARE = 0.85


@REWARDS.register
class SelfJudgeReward(GroupReward):
    """Self-consistency times a bounded factor from a frozen judge.

    The authors replace the rewards r of a group by r - logsumexp(r) and do not divide advantages by their deviation.
    GRPO subtracts the group mean, which cancels the logsumexp, so advantages are r - mean(r) either way. Here rewards
    stay between 0 and 1, and the option `method=self_judge` sets `algorithm.norm_adv_by_std_in_grpo=False`.

    Differences from the authors' code: a response without an answer gets 0. Theirs counts as an answer, and 0.5 is
    subtracted from its reward before clipping at 0. A missing `<think>` costs nothing here, because the prompt does not
    ask for it. The quorums and the tie rule of the vote do not apply.
    """

    name = "self_judge"
    needs_judgements = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return min(1, agreement * factor(judgement)), from 0 to 1; 0 without an answer.

        Agreement is the share of the response's answer in the group. If the largest share is above 0.85, it is 1 for
        that answer and 0 for all others.
        """
        assert group.judgements is not None
        rewards = [0.0] * len(group.answers)
        shares = [len(members) / len(group.answers) for members in group.vote.classes]
        is_hard = bool(shares) and shares[0] > HARD_SHARE
        for rank, (members, share) in enumerate(zip(group.vote.classes, shares, strict=True)):
            agreement = float(rank == 0) if is_hard else share
            for member in members:
                rewards[member] = min(1.0, agreement * judge_factor(group.judgements[member]))
        return rewards


def judge_factor(judgement: float) -> float:
    """Return g(s) = 1 + 0.2 sigmoid((s - 0.95) / 0.02) - 0.2 sigmoid((0.40 - s) / 0.05), between 0.8 and 1.2."""
    return 1 + 0.2 * _sigmoid((judgement - 0.95) / 0.02) - 0.2 * _sigmoid((0.40 - judgement) / 0.05)


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))
