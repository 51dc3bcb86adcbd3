"""Rewards for the responses to a prompt, one class per file; a new file needs no entry in a list.

Pure: imports no veRL. `verl_ext.rollout.reward_manager` runs the rewards inside veRL's reward workers.
"""
