"""What all reward managers of this plugin share: whole groups are scored in training, single responses in validation.

Every group votes, whatever its rewards come from, so that the metrics of the vote exist for controls, too.
"""

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from verl_ext.answers import correct, extract_answer
from verl_ext.checks import AGENT_LOOP_KEY, AGENT_LOOP_MANAGER, check_config
from verl_ext.rewards.request import GroupRequest, ResponseScore
from verl_ext.rewards.settings import RewardSettings, read_settings
from verl_ext.votes import Vote, vote


def grade_against_truth(
    response: str, truth: str | None, settings: RewardSettings, choices: Sequence[str] | None = None
) -> ResponseScore:
    """Score one validation response: 1 if its answer equals the truth, else 0 (also where either is missing).

    `extra_info` holds `acc`, the reward itself, `answered`, and `answer` as text ("" for none, as veRL's validation
    statistics expect a column of one type).
    """
    answer = extract_answer(response, settings.extraction)
    acc = float(correct(answer, truth, settings.comparison, choices))
    return ResponseScore(acc, {"acc": acc, "answered": float(answer is not None), "answer": answer or ""})


class GroupRewardManager(RewardManagerBase):
    """Scores the `GroupRequest`s of `verl_ext.rollout.agent_loop`; no reward model is involved."""

    # Tells the agent loop that this manager wants whole groups.
    scores_groups = True
    # Tells it to pass the log-probabilities of the sampled tokens on.
    needs_log_probs = False

    def __init__(self, config: DictConfig, tokenizer: Any, compute_score: Any, **unused: Any) -> None:
        check_config(config)
        super().__init__(config, tokenizer, compute_score)
        self._settings = read_settings(OmegaConf.select(config, "reward.reward_kwargs"))

    @abstractmethod
    def rewards(self, answers: Sequence[str | None], result: Vote, request: GroupRequest) -> Sequence[float]:
        """Return one reward a response of a group, whose answers (None for none) voted with this result.

        The `truth` of the request is None wherever `data.supervised` is not set.
        """

    def score_group(self, responses: Sequence[str], request: GroupRequest) -> list[ResponseScore]:
        """Score the responses of one group, which are the decoded ones of the request.

        `extra_info` of every response holds its `answer` (None where it gives none), the `choices` of its question and
        what the vote of its group was: `pseudo_label` (None where there is no winner), `vote_share`, `vote_tied`,
        `vote_distinct`, `vote_no_answer` and `vote_undecided` as in `Vote`, `voters`, their number, and `vote_seconds`,
        the time spent here.
        """
        start = time.perf_counter()
        settings = self._settings
        answers = [extract_answer(response, settings.extraction) for response in responses]
        result = vote(answers, settings.policy, settings.comparison, request.choices, responses)
        rewards = self.rewards(answers, result, request)
        group_info = {
            "choices": request.choices,
            "pseudo_label": result.winner,
            "vote_share": result.share,
            "vote_tied": result.tied,
            "vote_distinct": result.distinct,
            "vote_no_answer": result.no_answer,
            "vote_undecided": result.undecided,
            "voters": len(answers),
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
            return [grade_against_truth(response, data.truth, self._settings, data.choices) for response in responses]
        return self.score_group(responses, data)
