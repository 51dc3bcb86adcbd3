"""Client of a judge model behind an OpenAI-compatible endpoint. Sends prompts concurrently, each of them once.

Every reply is saved at once, so an interrupted run continues where it stopped. `mmupt.evaluation.judge_verdicts` builds
the prompts and parses the replies.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmupt.console import Progress, emit
from verl_ext.files import json_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class JudgeError(RuntimeError):
    """The endpoint cannot be used at all."""


@dataclass(frozen=True)
class Judge:
    """A model and its endpoint.

    `url` ends in /v1. `key_variable` is the environment variable with the API key; your own server needs none.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    # Concurrent requests.
    requests: int = 16
    # Retries after transient failures (429, 500, no connection), with growing delays.
    max_retries: int = 5
    # Seconds for one reply.
    timeout: float = 120.0
    # None is not sent, because endpoints refuse parameters that a model does not support.
    temperature: float | None = 0.0
    # Longest reply in tokens, under the older and the newer name of the parameter.
    max_tokens: int | None = 256
    max_completion_tokens: int | None = None
    # Whether to check that the endpoint lists the model before asking.
    list_models: bool = True

    @property
    def rule(self) -> str:
        """The name of the rule under which its verdicts are reported."""
        return f"judge {self.model}"

    def settings(self) -> dict[str, Any]:
        """The request fields besides model and prompt that determine a reply."""
        names = ("temperature", "max_tokens", "max_completion_tokens")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def key(self, prompt: str) -> str:
        """The key under which the reply to a prompt is saved."""
        return hashlib.sha256(json.dumps([self.model, prompt, self.settings()]).encode()).hexdigest()


@dataclass(frozen=True)
class Replies:
    """Replies and reasons of failures, both by prompt."""

    texts: dict[str, str]
    failures: dict[str, str]


def ask(judge: Judge, prompts: Iterable[str], kept: Path) -> Replies:
    """Ask the judge every prompt without a reply in the file `kept`, and append the replies to it.

    Raises:
        JudgeError: before any prompt is sent, if the endpoint does not answer, refuses the key, or does not serve the
            model.
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
    """Read the replies in a file by key. Unreadable lines, such as one cut by a kill, are ignored."""
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
    # Imported lazily: scoring by rule needs neither.
    from openai import AsyncOpenAI, OpenAIError
    from tqdm import tqdm

    client = AsyncOpenAI(
        base_url=judge.url,
        # The client requires a key even if the server does not.
        api_key=os.environ.get(judge.key_variable) or "none",
        max_retries=judge.max_retries,
        timeout=judge.timeout,
    )
    async with client:
        if judge.list_models:
            await _check(client, judge)
        slots = asyncio.Semaphore(judge.requests)
        # Terminates a line that a kill may have cut.
        begin = "" if not kept.is_file() or not kept.stat().st_size or kept.read_bytes().endswith(b"\n") else "\n"
        with kept.open("a") as file, tqdm(total=len(prompts), desc=judge.rule, unit="request") as bar:
            file.write(begin)

            async def ask_one(prompt: str) -> None:
                async with slots:
                    try:
                        texts[prompt] = await _reply(client, judge, prompt)
                    except (OpenAIError, ValueError) as error:
                        failures[prompt] = f"{type(error).__name__}: {error}"[:300]
                    else:
                        file.write(json_line({"key": judge.key(prompt), "reply": texts[prompt]}))
                        file.flush()
                    bar.update()
                    emit(Progress(int(bar.n), len(prompts), "judge requests"))

            await asyncio.gather(*map(ask_one, prompts))


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
    # A model that reasons until its tokens are used up returns None.
    return "" if content is None else _text(content)


def _text(content: Any) -> str:
    """The text of a reply, which may be a list of parts, without reasoning."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content):
        texts = [part.get("text") for part in content if part["type"] in ("text", "output_text")]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise ValueError(f"no text: {str(content)[:80]!r}")
