"""What a vote does where the paper leaves a choice: ties, quorums and how much agreeing is worth. Pure, counts nothing.

One block of the configuration, `reward.reward_kwargs.vote`, of the same fields; docs/vote.md has a source for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from verl_ext.unknown_keys import read_block

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
        ValueError: values that are not allowed, naming each field.
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
        def is_share(value: Any) -> bool:
            return type(value) in (int, float) and 0 <= value <= 1

        def is_count(value: Any) -> bool:
            return type(value) is int and value >= 2

        # Of each field: whether its value is allowed, and what is.
        fields_allowed = {
            "tie": (self.tie in get_args(TieRule), f"one of {', '.join(get_args(TieRule))}"),
            "reward": (self.reward in get_args(RewardRule), f"one of {', '.join(get_args(RewardRule))}"),
            "min_share": (is_share(self.min_share), "a number from 0 to 1"),
            "soft_min_share": (is_share(self.soft_min_share), "a number from 0 to 1"),
            "min_votes": (is_count(self.min_votes), "a whole number from 2 on"),
            "count_no_answer": (isinstance(self.count_no_answer, bool), "True or False"),
            "vote_n": (self.vote_n is None or is_count(self.vote_n), "null or a whole number from 2 on"),
            "seed": (type(self.seed) is int, "a whole number"),
        }
        problems = [
            f"{name} must be {allowed}, not {getattr(self, name)!r}"
            for name, (is_allowed, allowed) in fields_allowed.items()
            if not is_allowed
        ]
        if problems:
            raise ValueError("; ".join(problems))

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> "VotePolicy":
        """Make a policy from a block of the configuration; ValueError also for a key that is not a field."""
        return read_block(block, [field.name for field in fields(cls)], cls)
