"""Accuracy and agreement of responses to many questions, with standard errors.

All scores but the entropy compare answers with the ground truth, which training never sees. maj@k uses the training
vote, `verl_ext.votes`.
"""

from verl_ext.scores.at_k import Score, average, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

__all__ = ["Score", "average", "maj_at_k", "mean_at_k", "pass_at_k", "semantic_entropy"]
