"""Rounds in which the policy writes its own questions and trains on them."""
