"""The messages between the rollout and the reward workers. Pure data."""

from dataclasses import dataclass
from typing import Any

from verl_ext.votes.vote_record import VoteRecord


@dataclass(frozen=True)
class GroupRequest:
    """Asks for the scores of the surviving responses of one prompt.

    Attributes:
        response_ids: token ids per response, including the end-of-sequence token where it was sampled.
        validate: veRL's flag for validation.
        ground_truth: the correct answer; set in validation and under `data.supervised` only.
        choices: options of a multiple-choice question, otherwise None.
        question: in validation, the columns of the row as `data/mmupt_data/row_schema.py` documents them, and
            `metadata` from its sidecar.
        log_probs: for rewards that need them, log p per sampled token and response.
    """

    response_ids: list[list[int]]
    validate: bool
    ground_truth: str | None = None
    choices: list[str] | None = None
    question: dict[str, Any] | None = None
    log_probs: list[list[float]] | None = None


@dataclass(frozen=True)
class AccuracyRequest:
    """Asks how accurate the pseudo-label and the final rewards of a group are; answered by its completed record.

    Attributes:
        id: id of the row.
        own_ground_truth: ground truth of the row itself, used where the sidecar of its file has none.
        answers, rewards: one element per response that is trained on.
        choices: options of a multiple-choice question, otherwise None.
        record: the vote of the group.
    """

    id: str
    own_ground_truth: str | None
    answers: list[str | None]
    rewards: list[float]
    choices: list[str] | None
    record: VoteRecord


@dataclass(frozen=True)
class ResponseScore:
    """The reward of a response and its `reward_extra_info`, which has the same keys for every response of a mode."""

    reward: float
    extra_info: dict[str, Any]
