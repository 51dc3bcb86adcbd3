"""What all reward managers of this plugin share: whole groups are scored in training, single responses in validation.

Every group votes, whatever its rewards come from, so that the metrics of the vote exist for controls, too.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from verl_ext.answers import correct, extract_answer
from verl_ext.config_checks import AGENT_LOOP_KEY, AGENT_LOOP_MANAGER, check_config
from verl_ext.config_defaults import SAMPLER_KEY
from verl_ext.datasets.ground_truth import file_list
from verl_ext.rewards.diagnosis import Diagnostician
from verl_ext.rewards.group_request import Diagnosis, DiagnosisRequest, GroupRequest, ResponseScore
from verl_ext.rewards.reward_settings import RewardSettings, read_settings
from verl_ext.votes import Vote, vote

# Called as veRL calls a reward function: data_source, solution_str, ground_truth and extra_info by name.
ValidationScore = Callable[..., float]


def grade_against_truth(
    response: str,
    truth: str | None,
    settings: RewardSettings,
    choices: Sequence[str] | None = None,
    question: Mapping[str, Any] | None = None,
    score: ValidationScore | None = None,
) -> ResponseScore:
    """Score one validation response: 1 if its answer equals the truth, else 0 (also where either is missing).

    Where there is a `score`, it says what is right instead, of the response, its truth and its `question`. `extra_info`
    holds `acc`, the reward itself, `answered`, and `answer` as text ("" for none, as veRL's validation statistics
    expect a column of one type).
    """
    answer = extract_answer(response, settings.extraction)
    if score is None or question is None:
        acc = float(correct(answer, truth, settings.comparison, choices))
    else:
        source = question["data_source"]
        acc = float(score(data_source=source, solution_str=response, ground_truth=truth, extra_info=question))
    return ResponseScore(acc, {"acc": acc, "answered": float(answer is not None), "answer": answer or ""})


class GroupRewardManager(RewardManagerBase):
    """Scores the `GroupRequest`s of `verl_ext.rollout.agent_loop`; no reward model is involved.

    A `reward.custom_reward_function` scores validation responses, and no others.
    """

    # Tells the agent loop that this manager wants whole groups.
    scores_groups = True
    # Tells it to pass the log-probabilities of the sampled tokens on.
    needs_log_probs = False

    def __init__(self, config: DictConfig, tokenizer: Any, compute_score: Any, **unused: Any) -> None:
        check_config(config)
        super().__init__(config, tokenizer, compute_score)
        self._settings = read_settings(OmegaConf.select(config, "reward.reward_kwargs"))
        train_files = file_list(OmegaConf.select(config, f"{SAMPLER_KEY}.train_files"))
        self._diagnostician = Diagnostician(train_files, self._settings.comparison)
        # Without one veRL hands on its own function, which knows no data set of ours.
        is_custom = OmegaConf.select(config, "reward.custom_reward_function.path") is not None
        self._validation_score: ValidationScore | None = compute_score if is_custom else None

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

    async def run_single(self, data: GroupRequest | DiagnosisRequest) -> list[ResponseScore] | Diagnosis:
        """Score or diagnose a group; veRL's per-response batches, which carry no group, are refused with TypeError."""
        if isinstance(data, DiagnosisRequest):
            return await asyncio.to_thread(self._diagnostician.diagnose, data)
        if not isinstance(data, GroupRequest):
            raise TypeError(
                f"{type(self).__name__} scores groups, but was sent a {type(data).__name__} of single responses: set "
                f"{AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
            )
        # In a thread, as answers that are hard to compare must not keep other requests waiting.
        return await asyncio.to_thread(self._score, data)

    def _score(self, request: GroupRequest) -> list[ResponseScore]:
        responses = self.tokenizer.batch_decode(request.response_ids, skip_special_tokens=True)
        if request.validate:
            return [
                grade_against_truth(
                    response, request.truth, self._settings, request.choices, request.question, self._validation_score
                )
                for response in responses
            ]
        return self.score_group(responses, request)
