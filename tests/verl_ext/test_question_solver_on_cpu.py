"""A policy that writes questions answers them in the same rollout, about the same images; the engine is a stand-in."""

import asyncio
from typing import Any

import pytest
import ray
from rollouts import configuration, message, picture
from transformers import AutoTokenizer
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from verl_ext.config_defaults import SHARED_PROMPT_AGENT
from verl_ext.rewards.group_request import GroupRequest, ResponseScore, WrittenQuestion
from verl_ext.rollout import queue_rows, shared_features
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker

OVERRIDES = ["reward.reward_manager.name=question_writer", "reward.reward_kwargs.solver.samples=2"]
TOKENIZER = AutoTokenizer.from_pretrained(configuration(SHARED_PROMPT_AGENT, OVERRIDES).actor_rollout_ref.model.path)


class Policy:
    """Stand-in for the engine: writes the questions in turn, judges questions about an area valid, and answers "3"."""

    def __init__(self, *questions: str) -> None:
        self.questions = list(questions)
        self.solved: list[tuple[str, Any]] = []
        self.judged: list[str] = []

    async def generate(self, prompt_ids: list[int], image_data: Any = None, **request: Any) -> TokenOutput:
        text = TOKENIZER.decode(prompt_ids, skip_special_tokens=True)
        if "ask a question" in text:
            reply = self.questions.pop(0)
        elif "is right ?" in text:
            self.judged.append(text.split("user")[1].split(" is right ?")[0].strip())
            reply = "yes" if "area" in text else "no"
        else:
            self.solved.append((text, image_data))
            reply = "3"
        tokens = TOKENIZER.encode(reply)
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), stop_reason="completed", extra_fields={})


class RewardWorker:
    def __init__(self) -> None:
        self.compute_score = self
        self.requests: list[GroupRequest] = []

    async def remote(self, request: GroupRequest) -> list[ResponseScore]:
        self.requests.append(request)
        return [ResponseScore(float(number), {}) for number, _ in enumerate(request.response_ids)]


def roll_out(policy: Policy, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[WrittenQuestion]:
    async def put(*_: Any, **__: Any) -> None:
        return None

    assert not ray.is_initialized()
    monkeypatch.setattr(agent_loop_tq.tq, "init", lambda: None)
    for module in (agent_loop_tq, queue_rows, shared_features):
        monkeypatch.setattr(module.tq, "async_kv_put", put)
        monkeypatch.setattr(module.tq, "async_kv_batch_put", put)
    reward_worker = RewardWorker()

    async def body() -> None:
        config = configuration(SHARED_PROMPT_AGENT, [*OVERRIDES, *overrides])
        worker: Any = GroupAgentLoopWorker(config, policy, None, [reward_worker])
        prompt = {"uid": "a", "id": "a", "global_steps": 1, "agent_name": SHARED_PROMPT_AGENT}
        prompt["raw_prompt"] = message("ask a question about this figure .", picture(84, 84))
        await worker._run_prompt(prompt, {}, {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False})

    asyncio.run(body())
    (request,) = reward_worker.requests
    assert request.questions is not None and len(request.questions) == len(request.response_ids)
    return request.questions


def test_each_distinct_question_is_answered_about_the_image_and_the_answers_go_to_the_reward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    area, total = "what is the area of the triangle ?", "what is the total ?"
    policy = Policy(area, total, area)
    questions = roll_out(policy, monkeypatch, "reward.reward_kwargs.solver.instruction=is right")
    assert questions == [WrittenQuestion(text, ["3", "3"]) for text in (area, total, area)]
    assert sorted(text.split("user")[1].split("assistant")[0].strip() for text, _ in policy.solved) == sorted(
        [f"{area} is right"] * 2 + [f"{total} is right"] * 2
    )
    assert all(image[0].size == (84, 84) for _, image in policy.solved)


def test_the_policy_is_asked_once_whether_a_question_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    area, total = "what is the area ?", "what is the total ?"
    policy = Policy(area, total, area)
    validity = "reward.reward_kwargs.solver.validity_prompt='{question} is right ?'"
    assert roll_out(policy, monkeypatch, validity) == [
        WrittenQuestion(area, ["3", "3"], True),
        WrittenQuestion(total, ["3", "3"], False),
        WrittenQuestion(area, ["3", "3"], True),
    ]
    assert sorted(policy.judged) == [area, total]


def test_a_question_with_too_long_a_validity_prompt_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(*["what is the area ?"] * 3)
    validity = f"reward.reward_kwargs.solver.validity_prompt='{{question}} is right ?{' is right ?' * 9}'"
    questions = roll_out(policy, monkeypatch, validity, "data.max_prompt_length=40")
    assert questions == [WrittenQuestion("what is the area ?", ["3", "3"], False)] * 3 and not policy.judged


def test_missing_and_too_long_questions_are_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy("question :", "what is the total ? " * 6, "what is the total ?")
    questions = roll_out(policy, monkeypatch, "data.max_prompt_length=40")
    assert questions == [
        WrittenQuestion(None, []),
        WrittenQuestion(None, []),
        WrittenQuestion("what is the total ?", ["3"] * 2),
    ]
    assert len(policy.solved) == 2


def test_engines_that_refuse_repeated_ids_are_refused() -> None:
    from mmupt.compose import compose_recipe

    _, _, problems = compose_recipe("mmupt_tiny", [*OVERRIDES, "actor_rollout_ref.rollout.full_determinism=True"])
    assert any("set actor_rollout_ref.rollout.full_determinism=False" in problem for problem in problems)
