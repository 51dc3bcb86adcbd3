"""The messages between the rollout and the reward workers. Pure data."""

from dataclasses import dataclass
from typing import Any

from verl_ext.votes.vote_record import VoteRecord


@dataclass(frozen=True)
class WrittenQuestion:
    """The question in a response of a policy that writes questions.

    Attributes:
        text: None for a response without a question, or with one that is too long for the solver.
        solutions: responses of the solver to it; none without a question.
        is_valid: whether the solver calls it valid; None if it was not asked.
    """

    text: str | None
    solutions: list[str]
    is_valid: bool | None = None


@dataclass(frozen=True)
class GroupRequest:
    """Asks for the scores of the surviving responses of one prompt.

    Attributes:
        response_ids: token ids per response, including the end-of-sequence token where it was sampled.
        ground_truth: the correct answer; set in validation and under `data.supervised` only.
        function_arguments: in validation, the arguments of a reward function, without the text of the response.
        log_probs: for rewards that need them, log p per sampled token and response.
        prompt: for rewards that need judgements, the messages of the prompt in OpenAI's format, images as data URLs.
        questions: for rewards of a policy that writes questions, that of each response.
    """

    response_ids: list[list[int]]
    validate: bool
    ground_truth: str | None = None
    choices: list[str] | None = None
    function_arguments: dict[str, Any] | None = None
    log_probs: list[list[float]] | None = None
    prompt: list[dict[str, Any]] | None = None
    questions: list[WrittenQuestion] | None = None


@dataclass(frozen=True)
class AccuracyRequest:
    """Asks how accurate the pseudo-label and the final rewards of a group are; answered by a `GroupAccuracy`.

    Attributes:
        own_ground_truth: ground truth of the row itself, used where the sidecar of its file has none.
        answers: one per response that voted.
        rewards: one per response that is trained on, which are the first of them.
        choices: options of a multiple-choice question, otherwise None.
    """

    id: str
    own_ground_truth: str | None
    answers: list[str | None]
    rewards: list[float]
    choices: list[str] | None
    record: VoteRecord


@dataclass(frozen=True)
class GroupAccuracy:
    """How accurate a group is, once its rewards are final.

    Attributes:
        record: the record of the request, completed if the ground truth is known.
        correct: whether each answer of the request equals it, None if it is unknown.
    """

    record: VoteRecord
    ground_truth: str | None = None
    correct: list[bool] | None = None


@dataclass(frozen=True)
class ResponseScore:
    """The score of a response.

    Attributes:
        extra_info: its `reward_extra_info`, which has the same keys for every response of a mode.
        text: the decoded response in training, None in validation.
    """

    reward: float
    extra_info: dict[str, Any]
    text: str | None = None
