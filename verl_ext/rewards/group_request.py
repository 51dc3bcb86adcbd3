"""Messages between the rollout and the reward workers. Pure data."""

from dataclasses import dataclass
from typing import Any

from verl_ext.votes.vote_record import VoteRecord


@dataclass(frozen=True)
class WrittenQuestion:
    """The question in a response of a question-writing policy.

    Attributes:
        text: None if the response has no question or the question is too long for the solver.
        solutions: the solver's responses to the question; empty without a question.
        is_valid: whether the solver calls the question valid; None if it was not asked.
    """

    text: str | None
    solutions: list[str]
    is_valid: bool | None = None


@dataclass(frozen=True)
class GroupRequest:
    """Requests scores for the surviving responses to one prompt.

    Attributes:
        response_ids: token ids per response, including the end-of-sequence token if it was sampled.
        ground_truth: the correct answer; set only in validation and under `data.supervised`.
        function_arguments: in validation, the arguments of a reward function except the text of the response.
        log_probs: log p of each sampled token per response, if the reward needs it.
        prompt: content parts of the prompt in OpenAI's format, images as URLs, if the reward needs judgements.
        questions: the question in each response, if the reward needs questions.
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
    """Requests the accuracy of a group's pseudo-label and final rewards, a `GroupAccuracy`.

    Attributes:
        own_ground_truth: ground truth in the row, used if the sidecar of its file has none.
        answers: one per response that voted.
        rewards: one per response that is trained on; these are the first of those that voted.
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
    """The accuracy of a group with final rewards.

    Attributes:
        record: the record of the request, completed if the ground truth is known.
        correct: whether each answer of the request is correct; None if the ground truth is unknown.
    """

    record: VoteRecord
    ground_truth: str | None = None
    correct: list[bool] | None = None


@dataclass(frozen=True)
class ResponseScore:
    """The score of a response.

    Attributes:
        extra_info: veRL's `reward_extra_info`, with the same keys for all training and all validation responses.
        text: the decoded response in training, None in validation.
    """

    reward: float
    extra_info: dict[str, Any]
    text: str | None = None
