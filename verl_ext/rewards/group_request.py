"""What the rollout sends to a reward manager that scores groups, and what it gets back. Pure data."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GroupRequest:
    """The surviving responses of one prompt.

    `response_ids` holds one list of token ids a response, end-of-sequence token included where it was sampled.
    `validate` is veRL's own flag; `truth` is set for validation and under `data.supervised` only, None where it is not
    known. `choices` holds the options of the question, None where it has none. `question` holds, in validation, the
    columns of the row as `data/mmupt_data/row_schema.py` documents them, with `metadata` from its sidecar. `log_probs`
    holds, for managers that need them, one list a response: log p of every token that the policy sampled, under the
    distribution that it was sampled from.
    """

    response_ids: list[list[int]]
    validate: bool
    truth: str | None = None
    choices: list[str] | None = None
    question: dict[str, Any] | None = None
    log_probs: list[list[float]] | None = None


@dataclass(frozen=True)
class DiagnosisRequest:
    """A group whose rewards are final, to be held against its ground truth.

    `id` is that of its row, `own_truth` the ground truth that the row itself holds, None for that of its file.
    `answers` and `rewards` hold one element per response that is trained on; `pseudo_label` is what the vote elected,
    if anything, and `choices` holds the options of the question, None where it has none.
    """

    id: str
    own_truth: str | None
    answers: list[str | None]
    rewards: list[float]
    pseudo_label: str | None
    choices: list[str] | None


@dataclass(frozen=True)
class Diagnosis:
    """How right a group is, all None where its ground truth is not known.

    `pseudo_label_right` is None also where the vote elected nothing. `reward_accuracy` is one minus the mean distance
    of a reward from 1 for a right and 0 for a wrong answer.
    """

    pseudo_label_right: bool | None
    reward_accuracy: float | None


@dataclass(frozen=True)
class ResponseScore:
    """The reward of one response and its `reward_extra_info`, a dict of the same keys for every response of a mode."""

    reward: float
    extra_info: dict[str, Any]
