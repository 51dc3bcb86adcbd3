"""Lets the policy answer the questions that it wrote within the same rollout, without a second model or server."""

import asyncio
from collections.abc import Sequence
from typing import Any

from verl_ext.answers import verdict_in
from verl_ext.control_text import control_tokens
from verl_ext.rewards.group_request import WrittenQuestion
from verl_ext.rewards.question_parsing import question_in
from verl_ext.rewards.solver_prompt import SolverSettings, solver_messages
from verl_ext.rollout.shared_prompt import SharedPrompt, SharedPromptAgentLoop, current_prompt


class QuestionSolver:
    """Answers written questions with the agent loop that wrote them; every question becomes a separate prompt.

    Args:
        loop: generates with the current weights of the policy.
        settings: how often a question is answered, and whether the policy judges its validity.
        max_prompt_length: maximum length of a question's prompt, in tokens.
    """

    def __init__(self, loop: SharedPromptAgentLoop, settings: SolverSettings, max_prompt_length: int) -> None:
        self._loop = loop
        self._settings = settings
        self._max_prompt_length = max_prompt_length
        self._control_tokens = control_tokens(loop.tokenizer)

    async def solve(
        self,
        uid: str,
        messages: Sequence[dict[str, Any]],
        response_ids: Sequence[Sequence[int]],
        sampling_params: dict[str, Any],
    ) -> list[WrittenQuestion]:
        """Return the question in each response to `messages`, with its solutions.

        Equal questions are answered only once. Their prompts contain the images of `messages`, the prompt `uid`.
        """
        texts = await asyncio.to_thread(lambda: [question_in(text) for text in self._decoded(response_ids)])
        distinct = list(dict.fromkeys(text for text in texts if text is not None))
        answered = await asyncio.gather(
            *(self._answer(f"{uid}_{number}", messages, text, sampling_params) for number, text in enumerate(distinct))
        )
        questions: dict[str | None, WrittenQuestion] = dict(zip(distinct, answered, strict=True))
        return [questions.get(text, WrittenQuestion(None, [])) for text in texts]

    async def _answer(
        self, uid: str, messages: Sequence[dict[str, Any]], question: str, sampling_params: dict[str, Any]
    ) -> WrittenQuestion:
        settings = self._settings
        prompt = solver_messages(messages, question, settings.instruction, self._control_tokens)
        requests = [self._replies(uid, prompt, settings.samples, sampling_params)]
        if settings.validity_prompt is not None:
            text = settings.validity_prompt.replace("{question}", question)
            prompt = solver_messages(messages, text, None, self._control_tokens)
            requests.append(self._replies(f"{uid}_valid", prompt, 1, sampling_params))
        solutions, *validity = await asyncio.gather(*requests)
        if not solutions:
            return WrittenQuestion(None, [])
        if not validity:
            return WrittenQuestion(question, solutions)
        return WrittenQuestion(question, solutions, [verdict_in(reply) for reply in validity[0]] == ["yes"])

    async def _replies(
        self, uid: str, messages: list[dict[str, Any]], samples: int, sampling_params: dict[str, Any]
    ) -> list[str]:
        """Return replies to a prompt, an empty list if the prompt is too long."""
        # Visible to this task only, because `asyncio.gather` copies the context.
        prompt = SharedPrompt(uid, is_trained_on=False)
        current_prompt.set(prompt)
        try:
            if await self._loop.prepare(messages) > self._max_prompt_length:
                return []
            runs = (self._loop.run(sampling_params, raw_prompt=messages) for _ in range(samples))
            outputs = await asyncio.gather(*runs)
        finally:
            prompt.close()
        return await asyncio.to_thread(self._decoded, [output.response_ids for output in outputs])

    def _decoded(self, response_ids: Sequence[Sequence[int]]) -> list[str]:
        responses: list[str] = self._loop.tokenizer.batch_decode(response_ids, skip_special_tokens=True)
        return responses
