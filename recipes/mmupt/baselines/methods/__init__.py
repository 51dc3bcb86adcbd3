"""Non-GRPO baselines, one module each: the prompts that the policy responds to, and the training set made from them.

To add a baseline, add a module here that registers it; see docs/extending.md. `mmupt.baselines.selection` decides which
responses are kept. Only `rejection_sft`, the control with labels, reads the ground truth.
"""
