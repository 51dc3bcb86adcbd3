"""Prompts for a judge model, and how its replies are parsed. Nothing here talks to a model.

The prompts are the files in `prompts/`, written for this project instead of copied from the authors. Replies are
untrusted and parsed strictly.
"""

import re
from pathlib import Path

from mmupt.prompt_templates import encodable, fill_template, read_prompt

# Raise it when the prompts, the part of a response that the judge sees, or the parsing of replies changes.
JUDGE_VERSION = 2
PROMPTS = Path(__file__).parent / "prompts"
# Characters. The answer is at the end, and an endless response would not fit into the judge's context.
LONGEST_RESPONSE = 8_000
LONGEST_ANSWER = 500
_TAG = re.compile(r"<(?=/?(?:question|response|answer|truth)>)")
_LABEL = re.compile(r"^(?:(?:extracted|final)\s+)?(?:answer|judge?ment|verdict)\s*:\s*", re.IGNORECASE)


class Unreadable(ValueError):
    """A reply that cannot be parsed."""


def judge_prompt(prompt: str, **texts: str) -> str:
    """Fill each `{name}` in the file `prompt` with the text of that name. No text can close one of the prompt's tags.

    Raises:
        PromptError: the placeholders in the file differ from the names of the texts.
    """
    return fill_template(read_prompt(prompt, PROMPTS), texts, lambda text: _TAG.sub("< ", encodable(text)))


def end_of(response: str) -> str:
    """The end of a response, as much as the judge sees."""
    return response[-LONGEST_RESPONSE:]


def read_answer(reply: str) -> str | None:
    """Read the answer from the last line of a reply; None if the line says that there is none.

    Raises:
        Unreadable: the reply is empty, or its last line is too long for an answer.
    """
    answer = _last_line(reply)
    if not answer or len(answer) > LONGEST_ANSWER:
        raise Unreadable(f"no answer in {reply[:80]!r}")
    return None if answer.rstrip(".").lower() in ("none", "null") else answer


def read_agreement(reply: str) -> bool:
    """Whether the last line of a reply says 1 or yes, and not 0 or no; Unreadable if it says neither."""
    agreement = _last_line(reply).rstrip(".").lower()
    if agreement not in ("1", "yes", "0", "no"):
        raise Unreadable(f"neither 1 nor 0 in {reply[:80]!r}")
    return agreement in ("1", "yes")


def _last_line(reply: str) -> str:
    lines = reply.strip().splitlines() or [""]
    return _LABEL.sub("", lines[-1].strip().strip("*` ")).strip("*` ")
