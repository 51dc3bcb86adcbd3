"""What all reward managers of this plugin share: whole groups are scored in training, single responses in validation.

Every group votes, whatever its rewards come from, so that the metrics of the vote exist for controls, too.
"""

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from verl_ext.answers import equivalent, extract_answer
from verl_ext.checks import AGENT_LOOP_KEY, AGENT_LOOP_MANAGER, check_config
from verl_ext.rewards.request import GroupRequest, ResponseScore
from verl_ext.votes import Vote, vote


def grade_against_truth(response: str, truth: str | None) -> ResponseScore:
    """Score one validation response: 1 if its answer equals the truth, else 0 (also where either is missing).

    `extra_info` holds `acc`, the reward itself, `answered`, and `answer` as text ("" for none, as veRL's validation
    statistics expect a column of one type).
    """
    answer = extract_answer(response)
    correct = float(equivalent(answer, truth))
    return ResponseScore(correct, {"acc": correct, "answered": float(answer is not None), "answer": answer or ""})


class GroupRewardManager(RewardManagerBase):
    """Scores the `GroupRequest`s of `verl_ext.rollout.agent_loop`; no reward model is involved."""

    # Tells the agent loop that this manager wants whole groups.
    scores_groups = True

    def __init__(self, config: DictConfig, tokenizer: Any, compute_score: Any, **unused: Any) -> None:
        check_config(config)
        super().__init__(config, tokenizer, compute_score)

    @abstractmethod
    def rewards(self, answers: Sequence[str | None], result: Vote, truth: str | None) -> Sequence[float]:
        """Return one reward a response of a group, whose answers (None for none) voted with this result.

        `truth` is None wherever `data.supervised` is not set.
        """

    def score_group(self, responses: Sequence[str], truth: str | None = None) -> list[ResponseScore]:
        """Score the responses of one group.

        `extra_info` of every response holds its `answer` (None where it gives none) and what the vote of its group was:
        `pseudo_label` (None where there is no winner), `vote_share`, `vote_tied` and `vote_seconds`, the time spent
        here.
        """
        start = time.perf_counter()
        answers = [extract_answer(response) for response in responses]
        result = vote(answers)
        rewards = self.rewards(answers, result, truth)
        group_info = {
            "pseudo_label": result.winner,
            "vote_share": result.share,
            "vote_tied": result.tied,
            "vote_seconds": time.perf_counter() - start,
        }
        return [
            ResponseScore(reward, {"answer": answer, **group_info})
            for answer, reward in zip(answers, rewards, strict=True)
        ]

    async def run_single(self, data: GroupRequest) -> list[ResponseScore]:
        """Score one request; veRL's per-response batches, which carry no group, are refused with TypeError."""
        if not isinstance(data, GroupRequest):
            raise TypeError(
                f"{type(self).__name__} scores groups, but was sent a {type(data).__name__} of single responses: set "
                f"{AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
            )
        responses = self.tokenizer.batch_decode(data.response_ids, skip_special_tokens=True)
        if data.validate:
            return [grade_against_truth(response, data.truth) for response in responses]
        return self.score_group(responses, data.truth)
