"""Rewards for the policy's confidence in its own tokens: `entropy`, `probability`, `token_entropy`, `self_certainty`.

He et al. 2026, "How Far Can Unsupervised RLVR Scale LLM Training?", arXiv 2603.08660, compares all four. Formulas: the
authors' `compute_certainty_reward` in `verl/trainer/ppo/ttrl_utils.py` and `self_certainty_from_logits` in
`verl/utils/torch_functional.py` (github.com/PRIME-RL/TTRL, c46b671). Below, p_t is the policy's distribution over a
vocabulary of V at the t-th of T tokens, and p_t(y_t) that of the sampled token.
"""

from collections.abc import Sequence
from math import exp, fsum
from statistics import fmean

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class EntropyReward(GroupReward):
    """Trajectory-level entropy (EM-RL, arXiv 2505.15134): (1 / T) * sum of log p_t(y_t).

    It is minus an unbiased estimate of the mean token entropy that RENT (arXiv 2505.22660) minimizes, from one sample
    per token.

    Difference from the authors' code: log p is vLLM's, with temperature and top_p applied. Theirs is the actor's, which
    takes one more pass per step (see `token_entropy`).
    """

    name = "entropy"
    bounds = None
    needs_log_probs = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return the mean log-probability of the tokens of each response, at most 0.0."""
        assert group.log_probs is not None
        return [fmean(log_probs) for log_probs in group.log_probs]


@REWARDS.register
class ProbabilityReward(GroupReward):
    """Probability of the response (RLSC, arXiv 2506.06395): the product of p_t(y_t), which favours short responses.

    Difference from the authors' code: the one described in `EntropyReward`.
    """

    name = "probability"
    bounds = None
    needs_log_probs = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return exp of the summed log-probabilities of the tokens of each response, from 0.0 to 1.0."""
        assert group.log_probs is not None
        return [exp(fsum(log_probs)) for log_probs in group.log_probs]


@REWARDS.register
class TokenEntropyReward(EntropyReward):
    """Token-level entropy (RENT, arXiv 2505.22660): minus the mean entropy of p_t.

    Needs logits: `verl_ext.confidence_trainer` replaces the rewards returned here, those of `entropy`.
    """

    name = "token_entropy"


@REWARDS.register
class SelfCertaintyReward(EntropyReward):
    """Self-certainty (Intuitor, arXiv 2505.19590): the mean of KL(U || p_t), with U uniform over the vocabulary.

    Computed as the mean of logsumexp(z_t) - (1 / V) * sum of z_t over the logits z_t. As in the authors' code, this
    leaves out the constant -log V, which cancels within a group.

    Needs logits: `verl_ext.confidence_trainer` replaces the rewards returned here, those of `entropy`.
    """

    name = "self_certainty"


# Computed from logits by the trainer mode `sync_confidence`.
FROM_LOGITS = (SelfCertaintyReward.name, TokenEntropyReward.name)
