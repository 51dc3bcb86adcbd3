"""Additions to veRL's trackers (`trainer.logger`): restarts continue the same run, and a table shows sampled groups.

`verl_ext.patches.one_run_per_tracker` calls `runs` when veRL starts its trackers, and the replay buffer calls
`group_tables`. Tracker packages are imported where they are used, because none of them is required.
"""
