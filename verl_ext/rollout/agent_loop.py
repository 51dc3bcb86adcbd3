"""The agent loop worker that treats the n sessions of a prompt as one group.

veRL sends each response to a random reward worker, so that no reward worker ever sees a group, and repeats all work on
the prompt for every response. All n sessions of a prompt do run in one agent loop worker, which therefore shares that
work (`SharedPrompt`), gathers the responses by uid (`Group`), and sends the group to one reward worker when the last
session has settled, while other groups still generate. Selected by
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

import random
import time
from typing import Any

import ray
import torch
import transfer_queue as tq
from verl.experimental.agent_loop import AgentLoopOutput
from verl.trainer.ppo.reward import resolve_reward_manager_cls
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from verl_ext.rewards.request import GroupRequest, ResponseScore
from verl_ext.rollout.group import Group
from verl_ext.rollout.shared_prompt import SharedPrompt, current_prompt

# veRL's name is bound to the Ray actor; only the class beneath it can be inherited from.
_AgentLoopWorkerTQ: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class GroupAgentLoopWorker(_AgentLoopWorkerTQ):
    """veRL's worker, scoring a group at once where the configured reward manager asks for it (`scores_groups`).

    With any other reward manager it is veRL's worker unchanged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scores_groups = getattr(resolve_reward_manager_cls(self.config), "scores_groups", False)
        self._groups: dict[str, Group[list[int], ResponseScore]] = {}

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        uid = prompt["uid"]
        if self._scores_groups and not trajectory["validate"]:
            # The number of sessions that veRL is about to start for this prompt.
            n = prompt.get("__rollout_n__", self.config.actor_rollout_ref.rollout.n)
            self._groups[uid] = Group(n, lambda ids: self._send(uid, GroupRequest(ids, validate=False)))
        # Every prompt runs in a task of its own, so that this reaches its sessions only.
        current_prompt.set(SharedPrompt())
        await self._tag(uid, trajectory["validate"], id=prompt["id"], phase="generation")
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            self._groups.pop(uid, None)

    async def _run_agent_loop(self, *args: Any, **kwargs: Any) -> Any:
        group = self._groups.get(kwargs["uid"])
        try:
            return await super()._run_agent_loop(*args, **kwargs)
        finally:
            # A session that ends without having submitted a response has failed; for all others this does nothing.
            if group is not None:
                group.leave(kwargs["session_id"])

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: torch.Tensor) -> dict[str, Any]:
        features = current_prompt.get().features
        if features is None:
            return super()._compute_multi_modal_inputs(output, input_ids)
        # A dict of its own, as veRL takes `mm_token_type_ids` out of it; the tensors are shared.
        inputs = {name: value for name, value in features.items() if name != "attention_mask"}
        if (grid := inputs.get("image_grid_thw")) is not None:
            inputs["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        return inputs

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        if self._scores_groups and outputs:
            await self._score(outputs[-1], validate, kwargs)
        # veRL scores only what has no score yet.
        await super()._agent_loop_postprocess(output, validate, **kwargs)

    async def _score(self, output: AgentLoopOutput, validate: bool, kwargs: dict[str, Any]) -> None:
        start = time.perf_counter()
        if validate:
            truth = kwargs["reward_model"]["ground_truth"]
            request = GroupRequest([output.response_ids], validate=True, truth=truth)
            (score,) = await self._send(kwargs["uid"], request)
        else:
            score = await self._groups[kwargs["uid"]].submit(kwargs["session_id"], output.response_ids)
        output.reward_score = score.reward
        output.extra_fields["reward_extra_info"] = score.extra_info
        output.metrics.compute_score = time.perf_counter() - start

    async def _send(self, uid: str, request: GroupRequest) -> list[ResponseScore]:
        number = random.randrange(len(self.reward_loop_worker_handles))
        await self._tag(uid, request.validate, phase=f"reward worker {number}")
        return await self.reward_loop_worker_handles[number].compute_score.remote(request)

    async def _tag(self, uid: str, validate: bool, **tag: str) -> None:
        # For the watchdog, which tells from it what a prompt waits for; tags of one key are merged.
        await tq.async_kv_put(key=uid, partition_id="val" if validate else "train", tag=tag)


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """veRL's manager with `GroupAgentLoopWorker`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)
