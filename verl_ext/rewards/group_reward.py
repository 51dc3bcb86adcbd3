"""The base class of all rewards, and the registry behind `reward.reward_manager.name`. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from verl_ext.registry import Registry
from verl_ext.rewards.group_request import WrittenQuestion
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.votes import Vote


@dataclass(frozen=True)
class VotedGroup:
    """The responses to one prompt after their vote; every sequence has one element per response.

    Attributes:
        responses: decoded texts.
        answers: extracted answers, None for a response without one.
        vote: the outcome of the vote, with the pseudo-label and the classes of equal answers.
        choices: options of a multiple-choice question, otherwise None.
        log_probs: log-probabilities of the sampled tokens, None unless the reward sets `needs_log_probs`.
        embeddings: one row per response, (responses, width), None unless the reward sets `needs_embeddings`.
        judgements: the judge's score of each response, 0 to 1, None unless the reward sets `needs_judgements`.
        questions: the question in each response and its solutions, None unless the reward sets `needs_questions`.
        ground_truth: the correct answer, None unless the reward sets `needs_ground_truth`.
    """

    responses: Sequence[str]
    answers: Sequence[str | None]
    vote: Vote
    choices: list[str] | None = None
    log_probs: Sequence[Sequence[float]] | None = None
    embeddings: NDArray[np.float64] | None = None
    judgements: Sequence[float] | None = None
    questions: Sequence[WrittenQuestion] | None = None
    ground_truth: str | None = None


class GroupReward(ABC):
    """Base class of a reward that sees all responses to a prompt at once.

    To add a reward, save a subclass with one method as a file in `verl_ext/rewards` or as a plugin (see
    `verl_ext.registry`), and select it by `reward.reward_manager.name`. The vote takes place under every reward, so its
    metrics are always logged.

    Attributes:
        name: the name in recipes.
        bounds: the rewards of a certainly wrong and a certainly right response; `vote/reward_accuracy` scales to them.
            None for rewards without bounds, which have no accuracy.
        needs_log_probs, needs_embeddings, needs_judgements, needs_questions, needs_ground_truth: whether the field of
            `VotedGroup` must be set. Judgements require the judge, `reward.reward_model`. With `needs_questions`, the
            policy answers the questions in its responses. A ground truth requires `data.supervised=True`.
        is_control: whether the reward is a control experiment, which the collapse alarm never stops.

    Example:
        >>> @REWARDS.register
        ... class BriefMajorityReward(GroupReward):
        ...     '''The majority reward, for responses of at most 40 characters.'''
        ...
        ...     name = "brief_majority"
        ...
        ...     def rewards(self, group: VotedGroup) -> list[float]:
        ...         pairs = zip(group.vote.rewards, group.responses)
        ...         return [reward if len(response) <= 40 else 0.0 for reward, response in pairs]
        >>> from verl_ext.votes import vote
        >>> responses, answers = ["4", "So it is 4", "4" * 80, "5"], ["4", "4", "4", "5"]
        >>> BriefMajorityReward(RewardSettings()).rewards(VotedGroup(responses, answers, vote(answers)))
        [1.0, 1.0, 0.0, 0.0]
    """

    name: ClassVar[str]
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    needs_log_probs: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    needs_judgements: ClassVar[bool] = False
    needs_questions: ClassVar[bool] = False
    needs_ground_truth: ClassVar[bool] = False
    is_control: ClassVar[bool] = False

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings

    @abstractmethod
    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return one reward per response."""


REWARDS: Registry[type[GroupReward]] = Registry("reward", "verl_ext.rewards")
