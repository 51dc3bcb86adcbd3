"""Non-GRPO baselines of the MM-UPT paper: how their training sets are built and trained on.

`stage_runner` runs the stages of a method, `methods` defines them, `selection` decides which responses they keep.
docs/papers.md says whose method each is, and where ours departs from it.
"""
