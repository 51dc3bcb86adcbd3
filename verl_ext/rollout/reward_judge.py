"""The client of the judge, which judges the responses of a group.

The judge is veRL's reward model (`reward.reward_model`): a model on separate GPUs that is never trained. veRL starts
its servers behind a router and passes the address of the router to the reward workers.
"""

import asyncio
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from openai import AsyncOpenAI

from verl_ext.control_text import escaped
from verl_ext.rewards.judgements import PROMPT, JudgeSettings, judge_messages, judgement_of

# Concurrent requests of a reward worker, and retries of a request after a transient failure.
REQUESTS = 64
RETRIES = 8


class RewardJudge:
    """A judge behind veRL's router.

    Args:
        address: host and port of the router.
        model: `reward.reward_model.model_path`, the name under which vLLM serves the model.
        control_tokens: strings that the model's tokenizer reads as control tokens; they are escaped in responses.
    """

    def __init__(self, address: str, model: str, settings: JudgeSettings, control_tokens: Iterable[str]) -> None:
        self._client = AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=RETRIES, timeout=None)
        self._model = model
        self._settings = settings
        self._control_tokens = tuple(control_tokens)
        self._slots = asyncio.Semaphore(REQUESTS)

    async def judge(
        self, prompt: Sequence[dict[str, Any]], responses: Sequence[str], answers: Sequence[str | None]
    ) -> list[float]:
        """Return a judgement from 0 to 1 of each response to a prompt; raises openai.OpenAIError if the judge fails."""
        pairs = zip(responses, answers, strict=True)
        return await asyncio.gather(*(self._judge(prompt, response, answer) for response, answer in pairs))

    async def _judge(self, prompt: Sequence[dict[str, Any]], response: str, answer: str | None) -> float:
        settings = self._settings
        response, answer = (escaped(text, self._control_tokens) for text in (response, answer or ""))
        messages: Any = judge_messages(prompt, response, answer, settings.prompt or PROMPT)
        async with self._slots:
            completion = await self._client.chat.completions.create(
                model=self._model,
                messages=messages,
                n=settings.samples,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_tokens,
            )
        return fmean(judgement_of(choice.message.content or "", settings.scale) for choice in completion.choices)
