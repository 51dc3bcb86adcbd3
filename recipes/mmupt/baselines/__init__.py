"""Non-GRPO baselines of the MM-UPT paper: how their training sets are built and trained on.

`stage_runner` runs the stages of a method, `methods` defines them, and `selection` decides which responses they keep.
docs/papers.md names the paper of each method and the differences from it.
"""
