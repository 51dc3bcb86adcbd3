"""Vote settings that the paper leaves open: ties, quorums and the kind of reward.

The config block `reward.reward_kwargs.vote` has the same fields; docs/vote.md gives the source of each.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from verl_ext.unknown_keys import is_number, is_whole, refuse_values

TieRule = Literal["none", "all", "seeded"]
RewardRule = Literal["hard", "soft", "soft_min"]


@dataclass(frozen=True)
class VoteOptions:
    """How the responses of a group elect a pseudo-label, and how they are rewarded.

    tie: which of several largest classes wins. "none": no class; "all": all of them; "seeded": one drawn with `seed`.
    min_share: minimum share of the largest class, 0 to 1. A group below it has zero advantage.
    min_votes: minimum size of the largest class, 2 or more. A group below it has zero advantage.
    count_no_answer: whether responses without an answer count in the denominator of shares.
    reward: "hard": 1 in an elected class, else 0 (MM-UPT, arXiv 2505.22453, section 3); "soft": the share of the
        response's class; "soft_min": the same, but 0 for the whole group if its largest share is below `soft_min_share`
        (both EMPO, arXiv 2504.05812).
    soft_min_share: see `reward`, 0 to 1.
    vote_n: responses per prompt that vote, of which `actor_rollout_ref.rollout.n` are trained on (TTRL, arXiv
        2504.16084); None to train on all voters. Read by the rollout; `vote` counts all responses it is given.
    seed: see `tie`.

    Raises:
        ValueError: invalid values; the message names each field.
    """

    tie: TieRule = "none"
    min_share: float = 0.0
    min_votes: int = 2
    count_no_answer: bool = True
    reward: RewardRule = "hard"
    soft_min_share: float = 0.25
    vote_n: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "tie": (self.tie in get_args(TieRule), f"one of {', '.join(get_args(TieRule))}"),
            "reward": (self.reward in get_args(RewardRule), f"one of {', '.join(get_args(RewardRule))}"),
            "min_share": (is_number(self.min_share, 0, 1), "a number from 0 to 1"),
            "soft_min_share": (is_number(self.soft_min_share, 0, 1), "a number from 0 to 1"),
            "min_votes": (is_whole(self.min_votes, 2), "a whole number of at least 2"),
            "count_no_answer": (isinstance(self.count_no_answer, bool), "True or False"),
            "vote_n": (self.vote_n is None or is_whole(self.vote_n, 2), "null or a whole number of at least 2"),
            "seed": (is_whole(self.seed), "a whole number"),
        }
        refuse_values(self, allowed)
