"""How right the responses to many questions are, and how much they agree, with standard errors.

Measuring only, against true answers that training never sees. What an answer is belongs to `verl_ext.answers`, and the
vote of maj@k is the one of training, `verl_ext.votes`.
"""

from verl_ext.scores.at_k import Score, average, grade, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

__all__ = ["Score", "average", "grade", "maj_at_k", "mean_at_k", "pass_at_k", "semantic_entropy"]
