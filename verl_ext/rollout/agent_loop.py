"""The agent loop worker that treats the n sessions of a prompt as one group.

veRL sends each response to a random reward worker, so no reward worker ever sees a group, and it repeats all work on
the prompt for every response. But it runs all n sessions of a prompt in one agent loop worker. This worker shares the
work on the prompt (`SharedPrompt`), gathers the responses by uid (`Group`), and sends a group to one reward worker when
its last session has settled, while other groups still generate. Select it by
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, get_args

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.rollout_trace import rollout_trace_attr
from verl.utils.tokenizer import get_processor_token_id

from verl_ext.answers import Extraction
from verl_ext.config_defaults import SAMPLER, SAMPLER_KEY, SHARED_PROMPT_AGENT, uses
from verl_ext.datasets.ground_truth import ground_truth_of
from verl_ext.datasets.message_parts import copied
from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, GroupRequest, ResponseScore, WrittenQuestion
from verl_ext.rewards.group_reward import REWARDS, GroupReward
from verl_ext.rewards.judgements import judge_prompt
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.rollout.group_collector import Group
from verl_ext.rollout.question_fields import (
    choices_of,
    function_arguments,
    image_count,
    question_id,
    text_of,
)
from verl_ext.rollout.question_solver import QuestionSolver
from verl_ext.rollout.queue_rows import VOTED_QUESTION, QueueRow, make_row, put
from verl_ext.rollout.shared_features import SharedFeatures
from verl_ext.rollout.shared_prompt import SharedPrompt, SharedPromptAgentLoop, continued, current_prompt
from verl_ext.votes.vote_files import VotedQuestion, VotedResponse
from verl_ext.votes.vote_record import VoteRecord

logger = logging.getLogger(__name__)

# Warn when this many responses of a worker, from the first on, have no answer: prompts or extraction are set up wrong.
MANY_WITHOUT_ANSWER = 256


def sampled_log_probs(output: AgentLoopOutput) -> list[float]:
    """Return log p of the response tokens that the policy sampled, without tool output."""
    return [
        log_p for log_p, is_sampled in zip(output.response_logprobs, output.response_mask, strict=True) if is_sampled
    ]


class ScoredResponse(NamedTuple):
    """The score of a response.

    Attributes:
        is_needed: whether the response is trained on or validated.
        voted_question: for the first response of a group that may go on file, the group's `VotedQuestion` as JSON;
            otherwise "".
    """

    score: ResponseScore
    is_needed: bool
    voted_question: str = ""


# veRL's name refers to the Ray actor, so inherit from the class inside it.
_AgentLoopWorkerTQ: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class GroupAgentLoopWorker(_AgentLoopWorkerTQ):
    """veRL's worker, which scores whole groups for the rewards of this plugin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reward = self.config.reward.reward_manager.name
        self._scores_groups = reward in REWARDS
        # For other reward managers, the base class: it needs no extra fields.
        self._reward = REWARDS.get(reward, GroupReward)  # type: ignore[type-abstract]
        # `reward_kwargs` of other reward managers have other keys.
        reward_kwargs = OmegaConf.select(self.config, "reward.reward_kwargs") if self._scores_groups else None
        self._settings = read_settings(reward_kwargs)
        self._vote_n = self._settings.vote_options.vote_n
        # Only VoteReplayBuffer logs accuracy.
        self._measures_accuracy = uses(self.config, "trainer.v1.sampler.custom_sampler", SAMPLER)
        per_step = OmegaConf.select(self.config, f"{SAMPLER_KEY}.votes_per_step")
        self._records_votes = self._measures_accuracy and per_step != 0
        self._groups: dict[str, Group[AgentLoopOutput, ScoredResponse]] = {}
        self._rows: dict[str, Group[QueueRow, None]] = {}
        # Responses so far; None after an answer, a group whose rewards differ, or the warning.
        self._without_answer: int | None = 0

    def _warn_without_answers(self, scores: list[ResponseScore]) -> None:
        """Warn once, with the key to set, if no response so far has an answer."""
        if self._without_answer is None:
            return
        no_answer = all(score.extra_info.get("answer") is None and score.reward == scores[0].reward for score in scores)
        self._without_answer = self._without_answer + len(scores) if no_answer else None
        if self._without_answer is not None and self._without_answer >= MANY_WITHOUT_ANSWER:
            logger.warning(
                "none of the first %d responses has an answer in the form %s, so no group can vote and nothing is "
                "learned: set reward.reward_kwargs.answers.extraction to the form that the prompts ask for (%s), or "
                "have them ask for this one",
                self._without_answer,
                self._settings.extraction,
                ", ".join(get_args(Extraction)),
            )
            self._without_answer = None

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        shared = SharedPrompt(prompt["uid"], is_trained_on=not trajectory["validate"])
        # Each prompt runs in its own task, so only its sessions see this value.
        current_prompt.set(shared)
        try:
            # Rows in veRL's own format lack the id that identifies a question downstream.
            prompt = {**prompt, "id": question_id(prompt)}
            if "raw_prompt" in prompt:
                # Copy the messages, because our agent loop removes their images once they are sent.
                prompt["raw_prompt"] = copied(prompt["raw_prompt"])
            if self._scores_groups:
                await self._run_group(prompt, sampling_params, trajectory, trace)
            else:
                await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        except Exception:
            # As veRL handles session errors: the trainer waits until each prompt has finished or failed.
            logger.exception("prompt %s failed", prompt["uid"])
            await self._tag(prompt["uid"], trajectory["validate"], status="failure")
        finally:
            shared.close()

    async def _run_group(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool) -> None:
        uid = prompt["uid"]
        if not trajectory["validate"]:
            trained = prompt.get("__rollout_n__", self.config.actor_rollout_ref.rollout.n)
            sessions = max(trained, self._vote_n or trained)
            # The number of sessions that veRL is about to start for this prompt.
            prompt = {**prompt, "__rollout_n__": sessions}
            # Read before the sessions start, which remove the images from the prompt.
            judged = (
                await asyncio.to_thread(judge_prompt, prompt["raw_prompt"]) if self._reward.needs_judgements else None
            )
            messages = copied(prompt["raw_prompt"]) if self._reward.needs_questions else None

            async def score(outputs: list[AgentLoopOutput]) -> list[ScoredResponse]:
                questions = None
                if messages is not None:
                    responses = [output.response_ids for output in outputs]
                    questions = await self._question_solver.solve(uid, messages, responses, sampling_params)
                return await self._score_group(prompt, outputs, trained, judged, questions)

            self._groups[uid] = Group(sessions, score)
            self._rows[uid] = Group(sessions, put)
        await self._tag(uid, trajectory["validate"], id=prompt["id"], phase="generation")
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            self._groups.pop(uid, None)
            self._rows.pop(uid, None)

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> None:
        groups = [members[kwargs["uid"]] for members in (self._groups, self._rows) if kwargs["uid"] in members]
        try:
            if agent_name != SHARED_PROMPT_AGENT:
                await super()._run_agent_loop(sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs)
                return
            attributes = {name: trajectory[name] for name in ("sample_index", "rollout_n", "validate")}
            with rollout_trace_attr(step=trajectory["step"], name="agent_loop", trace=trace, **attributes):
                output = await self._shared_agent_loop.run(sampling_params, **kwargs)
                await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)
        finally:
            # A session that ends without a response has failed; for any other session this does nothing.
            for group in groups:
                group.leave(kwargs["session_id"])

    @cached_property
    def _shared_agent_loop(self) -> SharedPromptAgentLoop:
        # Stateless, so all sessions share one; veRL builds one per session, which takes 4 ms.
        return SharedPromptAgentLoop(
            trainer_config=DictConfigWrap(self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
            hf_model_type=self.hf_model_type,
            tools=ToolListWrap(self.tools),
        )

    @cached_property
    def _question_solver(self) -> QuestionSolver:
        return QuestionSolver(self._shared_agent_loop, self._settings.solver, self.config.data.max_prompt_length)

    def _compute_position_ids(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        multi_modal_inputs: Any,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        prompt = current_prompt.get()
        response = input_ids[:, len(prompt.tokens) :] if prompt.tokens else input_ids
        media_tokens = [get_processor_token_id(self.processor, kind) for kind in ("image", "video")]
        if not prompt.tokens or any(token is not None and (response == token).any() for token in media_tokens):
            return super()._compute_position_ids(input_ids, attention_mask, multi_modal_inputs, mm_processor_kwargs)
        if prompt.position_ids is None:
            tokens = input_ids[:, : len(prompt.tokens)]
            prompt.position_ids = super()._compute_position_ids(
                tokens, torch.ones_like(tokens), dict(prompt.features or {}), mm_processor_kwargs
            )
        # veRL does not pass `mm_token_type_ids` to the actor.
        multi_modal_inputs.pop("mm_token_type_ids", None)
        return continued(prompt.position_ids, response.shape[1])

    def _compute_multi_modal_inputs(
        self, output: AgentLoopOutput, input_ids: torch.Tensor
    ) -> dict[str, torch.Tensor] | SharedFeatures:
        prompt = current_prompt.get()
        if prompt.features is None:
            return super()._compute_multi_modal_inputs(output, input_ids)
        # A new dict with the same tensors, because veRL removes `mm_token_type_ids` from it.
        return SharedFeatures(prompt.uid, prompt.features) if prompt.has_pixels else dict(prompt.features)

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        if self._scores_groups and outputs:
            scored = await self._score(outputs[-1], validate, kwargs)
            if not scored.is_needed:
                return
            if self._records_votes and not validate:
                kwargs[VOTED_QUESTION] = scored.voted_question
        rows = self._rows.get(kwargs["uid"])
        if rows is None or isinstance(output, list) or self.distillation_enabled:
            # veRL does not score a response again that already has a score.
            await super()._agent_loop_postprocess(output, validate, **kwargs)
            return

        def complete(input_ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
            features = self._compute_multi_modal_inputs(output, input_ids)
            positions = self._compute_position_ids(input_ids[None], torch.ones_like(input_ids)[None], features)
            return positions[0], features

        await rows.submit(kwargs["session_id"], make_row(output, kwargs, complete))

    async def _score(self, output: AgentLoopOutput, validate: bool, kwargs: dict[str, Any]) -> ScoredResponse:
        """Score a response: alone in validation, with its group in training."""
        start = time.perf_counter()
        if validate:
            request = GroupRequest(
                [output.response_ids],
                validate=True,
                ground_truth=ground_truth_of(kwargs),
                choices=choices_of(kwargs),
                # The same `extra_info` as veRL's reward managers pass (reward_manager/naive.py).
                function_arguments=function_arguments(
                    kwargs, {**output.extra_fields, "num_turns": output.num_turns, "rollout_reward_scores": {}}
                ),
            )
            reward_worker = await self._choose_reward_worker(kwargs["uid"], validate)
            (score,) = await reward_worker.compute_score.remote(request)
            scored = ScoredResponse(score, is_needed=True)
        else:
            scored = await self._groups[kwargs["uid"]].submit(kwargs["session_id"], output)
        output.reward_score = scored.score.reward
        output.extra_fields["reward_extra_info"] = scored.score.extra_info
        output.metrics.compute_score = time.perf_counter() - start
        return scored

    async def _score_group(
        self,
        prompt: dict,
        outputs: list[AgentLoopOutput],
        trained: int,
        judged: list[dict[str, Any]] | None,
        questions: list[WrittenQuestion] | None,
    ) -> list[ScoredResponse]:
        """Score the responses to a prompt and mark the first `trained` of them, which are trained on.

        All responses vote. Sessions differ only by chance, so it does not matter which of them are trained on. `judged`
        and `questions` are the fields `prompt` and `questions` of `GroupRequest`.
        """
        is_supervised = OmegaConf.select(self.config, "data.supervised")
        request = GroupRequest(
            [output.response_ids for output in outputs],
            validate=False,
            ground_truth=ground_truth_of(prompt) if is_supervised else None,
            choices=choices_of(prompt),
            log_probs=[sampled_log_probs(output) for output in outputs] if self._reward.needs_log_probs else None,
            prompt=judged,
            questions=questions,
        )
        reward_worker = await self._choose_reward_worker(prompt["uid"], validate=False)
        scores: list[ResponseScore] = await reward_worker.compute_score.remote(request)
        self._warn_without_answers(scores)
        record = VoteRecord.from_extra_info(scores[0].extra_info) if self._measures_accuracy else None
        voted_question = ""
        if record is not None:
            # The same worker, because the tag of the prompt names it.
            accuracy: GroupAccuracy = await reward_worker.compute_score.remote(
                AccuracyRequest(
                    prompt["id"],
                    ground_truth_of(prompt),
                    answers=[score.extra_info["answer"] for score in scores],
                    # No later step changes these rewards.
                    rewards=[score.reward for score in scores[:trained]],
                    choices=request.choices,
                    record=record,
                )
            )
            if self._records_votes:
                voted_question = _voted_question(prompt, scores, trained, accuracy).to_json()
            completed = accuracy.record.to_extra_info()
            scores = [replace(score, extra_info={**score.extra_info, **completed}) for score in scores]
        return [
            ScoredResponse(score, number < trained, "" if number else voted_question)
            for number, score in enumerate(scores)
        ]

    async def _choose_reward_worker(self, uid: str, validate: bool) -> Any:
        """Return a random reward worker and note for the watchdog that the prompt waits for it."""
        number = random.randrange(len(self.reward_loop_worker_handles))
        await self._tag(uid, validate, phase=f"reward worker {number}")
        return self.reward_loop_worker_handles[number]

    async def _tag(self, uid: str, validate: bool, **tag: str) -> None:
        # The watchdog reads from the tag what a prompt waits for. The queue merges tags of the same key.
        await tq.async_kv_put(key=uid, partition_id="val" if validate else "train", tag=tag)


def _voted_question(prompt: dict, scores: list[ResponseScore], trained: int, accuracy: GroupAccuracy) -> VotedQuestion:
    correct: Sequence[bool | None] = accuracy.correct or [None] * len(scores)
    return VotedQuestion(
        prompt["id"],
        text_of(prompt),
        image_count(prompt),
        choices_of(prompt),
        accuracy.ground_truth,
        [
            VotedResponse(score.text or "", score.extra_info["answer"], score.reward, number < trained, correct[number])
            for number, score in enumerate(scores)
        ],
    )


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """veRL's manager with `GroupAgentLoopWorker`s.

    Raises:
        ValueError: the trainer is not veRL's v1 trainer. A recipe's own trainer would otherwise fail without a reason,
            whatever its config says.
    """

    def __init__(self, config: DictConfig, *args: Any, **kwargs: Any) -> None:
        # Only the v1 trainer sets this key, because it keeps rows in TransferQueue (main_ppo.py, TaskRunnerV1).
        if not OmegaConf.select(config, "transfer_queue.enable"):
            raise ValueError(f"{type(self).__name__} needs veRL's v1 trainer: run verl.trainer.main_ppo")
        super().__init__(config, *args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)
