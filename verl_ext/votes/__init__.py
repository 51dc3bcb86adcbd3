"""Majority vote of a group: the responses to one prompt elect a pseudo-label, and responses that agree are rewarded.

The vote is a pure function of the answers. `verl_ext.answers` extracts and compares answers, the agent loop forms the
groups, and `verl_ext.scores` compares answers with the ground truth, which a vote never sees.
"""

from verl_ext.votes.majority import Vote, vote
from verl_ext.votes.vote_options import VoteOptions

__all__ = ["Vote", "VoteOptions", "vote"]
