"""Rounds of self-improvement: the policy writes questions and is trained on them."""
