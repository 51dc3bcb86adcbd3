"""Trackers of veRL's `trainer.logger`: all starts of a run are one run of each, and they get a table of groups.

`verl_ext.patches.one_run_per_tracker` calls `runs` where veRL starts its trackers, and the replay buffer calls
`group_tables`. The packages of trackers are imported where they are used: none of them need be installed.
"""
