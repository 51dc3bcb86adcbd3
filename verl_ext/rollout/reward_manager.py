"""The reward manager in veRL's reward workers: scores whole groups in training and single responses in validation.

`reward.reward_manager.name` selects the reward, one of `verl_ext.rewards`.
"""

import asyncio
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.answers import extract_answer
from verl_ext.config_checks import AGENT_LOOP_MANAGER, check_config
from verl_ext.config_defaults import SAMPLER_KEY
from verl_ext.control_text import control_tokens
from verl_ext.files import file_list
from verl_ext.import_check import AGENT_LOOP_KEY, REWARD_FUNCTION, REWARD_MANAGER_KEY
from verl_ext.rewards.accuracy import AccuracyMeter
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, GroupRequest, ResponseScore
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.rewards.scoring import grade_response, score_group
from verl_ext.rollout.reward_judge import RewardJudge
from verl_ext.rollout.token_embeddings import TokenEmbeddings


class GroupRewardManager(RewardManagerBase):
    """Answers the requests of `verl_ext.rollout.agent_loop`.

    `reward.custom_reward_function` grades only validation responses.
    """

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        **unused: Any,
    ) -> None:
        check_config(config)
        super().__init__(config, tokenizer, compute_score)
        settings = read_settings(OmegaConf.select(config, "reward.reward_kwargs"))
        self._reward = REWARDS.named(OmegaConf.select(config, REWARD_MANAGER_KEY))(settings)
        train_files = file_list(OmegaConf.select(config, f"{SAMPLER_KEY}.train_files"))
        self._accuracy = AccuracyMeter(train_files, settings.comparison, self._reward.bounds)
        needs_embeddings = self._reward.needs_embeddings
        self._embeddings = TokenEmbeddings(config.actor_rollout_ref.model.path) if needs_embeddings else None
        self._judge = None
        if self._reward.needs_judgements and reward_router_address:
            model = config.reward.reward_model.model_path
            self._judge = RewardJudge(reward_router_address, model, settings.judge, control_tokens(tokenizer))
        # Without a path, veRL passes its own function, which does not support the data sets of this project.
        self._validation_score = compute_score if OmegaConf.select(config, f"{REWARD_FUNCTION}.path") else None

    async def run_single(self, data: GroupRequest | AccuracyRequest) -> list[ResponseScore] | GroupAccuracy:
        """Answer a request in a thread, so that slow comparisons do not block other requests.

        Raises:
            TypeError: the request is one of veRL's batches of single responses, which contain no group.
        """
        if isinstance(data, AccuracyRequest):
            return await asyncio.to_thread(self._accuracy.measure, data)
        if not isinstance(data, GroupRequest):
            raise TypeError(
                f"{type(self).__name__} scores groups, but received a {type(data).__name__} of single responses: set "
                f"{AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
            )
        decode, settings = self.tokenizer.batch_decode, self._reward.settings
        responses: list[str] = await asyncio.to_thread(decode, data.response_ids, skip_special_tokens=True)
        if data.validate:
            return [await self._grade(response, data) for response in responses]
        judgements = None
        if data.prompt is not None and self._judge is not None:
            answers = [extract_answer(response, settings.extraction) for response in responses]
            judgements = await self._judge.judge(data.prompt, responses, answers)
        return await asyncio.to_thread(self._score, data, responses, judgements)

    async def _grade(self, response: str, request: GroupRequest) -> ResponseScore:
        verdict = None
        if self._validation_score is not None and request.function_arguments is not None:
            score = partial(self._validation_score, solution_str=response, **request.function_arguments)
            # As in veRL, reward functions may be synchronous or asynchronous (reward_manager/naive.py).
            verdict = await (score() if iscoroutinefunction(score) else asyncio.to_thread(score))
            if verdict is None:
                raise ValueError(f"{REWARD_FUNCTION} returned None for {response[:80]!r}: it must return a score")
        return await asyncio.to_thread(grade_response, response, request, self._reward.settings, verdict)

    def _score(
        self, request: GroupRequest, responses: list[str], judgements: list[float] | None
    ) -> list[ResponseScore]:
        embeddings = self._embeddings.of(request.response_ids) if self._embeddings else None
        return score_group(responses, request, self._reward, embeddings, judgements)


for _name in REWARDS:
    register(_name)(GroupRewardManager)
