"""A judge model behind an OpenAI-compatible endpoint: it is asked many prompts at a time, and each of them once.

Every reply is kept in a file as it comes, so that whatever ends a run, the next one asks only the rest. What is asked,
and what is made of the replies, is in `mmupt.evaluation.judge_verdicts`.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_ext.files import json_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class JudgeError(RuntimeError):
    """The judge cannot be asked at all."""


@dataclass(frozen=True)
class Judge:
    """A model and where it is served.

    `url` ends in /v1. `key_variable` is the environment variable with the key; a server of one's own needs none.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    # Requests under way at a time.
    requests: int = 16
    # What fails for a reason that may pass (429, 500, no connection) is asked again so many times, ever later.
    max_retries: int = 5
    # Seconds for one reply.
    timeout: float = 120.0
    # Sent with each request, None for not at all: endpoints refuse what a model does not take.
    temperature: float | None = 0.0
    # Longest reply, under its older and its newer name.
    max_tokens: int | None = 256
    max_completion_tokens: int | None = None
    # Whether the endpoint's list of models must name the model before anything is asked.
    list_models: bool = True

    @property
    def rule(self) -> str:
        """The name of its verdicts."""
        return f"judge {self.model}"

    def settings(self) -> dict[str, Any]:
        """What is sent besides model and prompt, and so determines a reply."""
        names = ("temperature", "max_tokens", "max_completion_tokens")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def key(self, prompt: str) -> str:
        """Under which the reply to a prompt is kept."""
        return hashlib.sha256(json.dumps([self.model, prompt, self.settings()]).encode()).hexdigest()


@dataclass(frozen=True)
class Replies:
    """The replies by prompt, and by prompt why the others have none."""

    texts: dict[str, str]
    failures: dict[str, str]


def ask(judge: Judge, prompts: Iterable[str], kept: Path) -> Replies:
    """Ask the judge each prompt whose reply is not in the file `kept`, where new ones are added.

    Raises:
        JudgeError: the endpoint does not answer, refuses the key, or does not serve the model; nothing was asked then.
    """
    known = read_kept(kept)
    prompts = list(dict.fromkeys(prompts))
    texts = {prompt: known[key] for prompt in prompts if (key := judge.key(prompt)) in known}
    missing = [prompt for prompt in prompts if prompt not in texts]
    failures: dict[str, str] = {}
    if missing:
        asyncio.run(_ask(judge, missing, kept, texts, failures))
    return Replies(texts, failures)


def read_kept(path: Path) -> dict[str, str]:
    """The replies in a file by key; a line that cannot be read, as a kill may leave one, is as if it were not there."""
    found: dict[str, str] = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            content = json.loads(line)
            if isinstance(content["key"], str) and isinstance(content["reply"], str):
                found[content["key"]] = content["reply"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


async def _ask(judge: Judge, prompts: list[str], kept: Path, texts: dict[str, str], failures: dict[str, str]) -> None:
    # Both come with vLLM, and scoring by rule needs neither.
    from openai import AsyncOpenAI, OpenAIError
    from tqdm import tqdm

    client = AsyncOpenAI(
        base_url=judge.url,
        # The client wants one even for a server that asks for none.
        api_key=os.environ.get(judge.key_variable) or "none",
        max_retries=judge.max_retries,
        timeout=judge.timeout,
    )
    async with client:
        if judge.list_models:
            await _check(client, judge)
        slots = asyncio.Semaphore(judge.requests)
        # Begins a line, should a kill have cut the last one.
        begin = "" if not kept.is_file() or not kept.stat().st_size or kept.read_bytes().endswith(b"\n") else "\n"
        with kept.open("a") as file, tqdm(total=len(prompts), desc=judge.rule, unit="request") as bar:
            file.write(begin)

            async def one(prompt: str) -> None:
                async with slots:
                    try:
                        texts[prompt] = await _reply(client, judge, prompt)
                    except (OpenAIError, ValueError) as error:
                        failures[prompt] = f"{type(error).__name__}: {error}"[:300]
                    else:
                        file.write(json_line({"key": judge.key(prompt), "reply": texts[prompt]}))
                        file.flush()
                    bar.update()

            await asyncio.gather(*map(one, prompts))


async def _check(client: "AsyncOpenAI", judge: Judge) -> None:
    """Raise JudgeError unless the model is served."""
    from openai import OpenAIError

    try:
        served = [model.id async for model in client.with_options(max_retries=0).models.list()]
    except (OpenAIError, ValueError, TypeError, AttributeError) as error:
        raise JudgeError(f"no judge answers at {judge.url} ({type(error).__name__}: {error})"[:500]) from error
    if judge.model not in served:
        raise JudgeError(
            f"{judge.url} does not serve {judge.model}, but {', '.join(map(str, served[:20])) or 'nothing'}"
        )


async def _reply(client: "AsyncOpenAI", judge: Judge, prompt: str) -> str:
    completion = await client.chat.completions.create(
        model=judge.model, messages=[{"role": "user", "content": prompt}], **judge.settings()
    )
    try:
        content: Any = completion.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        raise ValueError(f"no completion: {str(completion)[:80]!r}") from None
    # Nothing at all, where a model reasons until its tokens are used up.
    return "" if content is None else _text(content)


def _text(content: Any) -> str:
    """The text of a reply, which may come in parts; what a model reasons is no part of it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        raise ValueError(f"no text: {str(content)[:80]!r}")
    texts = [part.get("text") for part in content if part["type"] in ("text", "output_text")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"no text: {str(content)[:80]!r}")
    return "".join(texts)
