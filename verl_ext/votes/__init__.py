"""The majority vote of a group: the responses to one prompt elect a pseudo-label, which rewards those that gave it.

Pure counting over answers, under a policy. What an answer is and when two are equal belongs to `verl_ext.answers`, who
is in a group to the agent loop, and whether a pseudo-label is true to `verl_ext.scores`: a vote never sees a true
answer.
"""

from verl_ext.votes.majority import Vote, vote
from verl_ext.votes.vote_options import VotePolicy

__all__ = ["Vote", "VotePolicy", "vote"]
