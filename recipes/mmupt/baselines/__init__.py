"""The methods that MM-UPT is compared with: what of a model's responses they keep, and how they train on it.

How a model generates is in `recipes.mmupt.evaluation.generation`; GRPO, with labels or without, is veRL's.
"""
