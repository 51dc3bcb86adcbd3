"""What a vote does where the paper leaves a choice: ties, quorums and how much agreeing is worth. Pure, counts nothing.

One block of the configuration, `reward.reward_kwargs.vote`, of the same fields; docs/vote.md has a source for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from verl_ext.keys import refuse_unknown_keys

TieRule = Literal["none", "all", "seeded"]
RewardRule = Literal["hard", "soft", "soft_min"]


@dataclass(frozen=True)
class VotePolicy:
    """How the responses of a group elect a pseudo-label, and what they are rewarded with.

    tie: who is elected where several classes are the largest. "none": nobody; "all": all of them; "seeded": one, drawn
        with `seed`.
    min_share: below this share of the largest class, 0 to 1, the group teaches nothing.
    min_votes: with fewer responses in the largest class, two at least, the group teaches nothing: no single response
        elects itself.
    count_no_answer: whether responses without an answer count in every share.
    reward: what a response is rewarded with. "hard": 1 in an elected class, else 0 (MM-UPT, arXiv 2505.22453, section
        3); "soft": the share of its own class; "soft_min": the same, but 0 for the whole group where the largest share
        is below `soft_min_share` (both EMPO, arXiv 2504.05812).
    soft_min_share: see `reward`, 0 to 1.
    vote_n: responses of a prompt that vote, of which `actor_rollout_ref.rollout.n` are trained on (TTRL, arXiv
        2504.16084); None for these alone. Read by the rollout: a vote counts the responses that it is given.
    seed: see `tie`.

    Raises:
        ValueError: a value that is not allowed, naming the field.
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
        self._check("tie", self.tie in get_args(TieRule), f"one of {', '.join(get_args(TieRule))}")
        self._check("reward", self.reward in get_args(RewardRule), f"one of {', '.join(get_args(RewardRule))}")
        for name in ("min_share", "soft_min_share"):
            value = getattr(self, name)
            self._check(name, type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1")
        self._check("min_votes", type(self.min_votes) is int and self.min_votes >= 2, "a whole number from 2 on")
        self._check("count_no_answer", isinstance(self.count_no_answer, bool), "True or False")
        allowed = self.vote_n is None or (type(self.vote_n) is int and self.vote_n >= 2)
        self._check("vote_n", allowed, "null or a whole number from 2 on")
        self._check("seed", type(self.seed) is int, "a whole number")

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> "VotePolicy":
        """Make a policy from a block of the configuration; ValueError also for a key that is not a field."""
        refuse_unknown_keys(block, [field.name for field in fields(cls)])
        return cls(**block)

    def _check(self, name: str, is_allowed: bool, allowed: str) -> None:
        if not is_allowed:
            raise ValueError(f"{name} must be {allowed}, not {getattr(self, name)!r}")
