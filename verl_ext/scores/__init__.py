"""Accuracy and agreement of responses to many questions, with standard errors.

Everything here is compared with ground truth that training never sees. maj@k uses the vote of training,
`verl_ext.votes`.
"""

from verl_ext.scores.at_k import Score, average, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

__all__ = ["Score", "average", "maj_at_k", "mean_at_k", "pass_at_k", "semantic_entropy"]
