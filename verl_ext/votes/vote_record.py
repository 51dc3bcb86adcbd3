"""The record of a group's vote, sent from the reward worker through the transfer queue to the metrics. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from verl_ext.votes.majority import Vote

# Key of the record in a response's `reward_extra_info`.
KEY = "vote"


@dataclass(frozen=True)
class VoteRecord:
    """The vote of one prompt's responses and its accuracy.

    Attributes:
        seconds: time to extract, compare and reward the answers.
        label_correct: whether the pseudo-label equals the ground truth; None if either is missing.
        ground_truth_ratio: share of correct answers among all responses that voted; None without a ground truth.
        reward_accuracy: 1 minus the mean distance of the rewards, scaled by `GroupReward.bounds`, from 1 for a correct
            answer and 0 for a wrong answer; None without a ground truth or bounds.
    """

    vote: Vote
    seconds: float
    label_correct: bool | None = None
    ground_truth_ratio: float | None = None
    reward_accuracy: float | None = None

    def to_extra_info(self) -> dict[str, Any]:
        """Return the record in plain values as an entry of `reward_extra_info`."""
        return {KEY: asdict(self)}

    @classmethod
    def from_extra_info(cls, info: Mapping[str, Any]) -> "VoteRecord | None":
        """Read the record back; None for a response scored by another reward manager."""
        if KEY not in info:
            return None
        return cls(**{**info[KEY], "vote": Vote(**info[KEY]["vote"])})
