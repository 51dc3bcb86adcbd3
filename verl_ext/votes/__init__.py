"""The majority vote of a group: the responses to one prompt elect a pseudo-label, which rewards those that gave it.

Pure counting over answers. What an answer is belongs to `verl_ext.answers`, who is in a group to the agent loop, and
whether a pseudo-label is true to `verl_ext.scores`: a vote never sees a true answer.
"""

from verl_ext.votes.majority import Vote, vote

__all__ = ["Vote", "vote"]
