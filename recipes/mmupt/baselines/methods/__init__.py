"""Baselines that are not GRPO, one module each: which prompts the policy responds to, and what is trained on.

A new baseline is a module here that registers it; see docs/extending.md. `mmupt.baselines.selection` decides which
responses are kept. Only `rejection_sft`, the control with labels, reads the ground truth.
"""
