"""Prompts for a judge model, and how its replies are parsed. Nothing here talks to a model.

The prompts are the files of `prompts/`, worded for this project: they are not the authors'. A reply is untrusted text
and is read by strict rules.
"""

import re
from functools import cache
from pathlib import Path

from mmupt.prompt_templates import encodable, fill_template, read_prompt

# Raise it when the prompts, the part of a response that is shown, or the parsing of replies changes.
JUDGE_VERSION = 2
PROMPTS = Path(__file__).parent / "prompts"
# Characters. The answer is at the end, and a response that never ended would not fit into the judge's context.
LONGEST_RESPONSE = 8_000
LONGEST_ANSWER = 500
_TAG = re.compile(r"<(?=/?(?:question|response|answer|truth)>)")
_LABEL = re.compile(r"^(?:(?:extracted|final)\s+)?(?:answer|judge?ment|verdict)\s*:\s*", re.IGNORECASE)


class Unreadable(ValueError):
    """A reply that cannot be parsed."""


def judge_prompt(prompt: str, **texts: str) -> str:
    """Fill a text into each `{name}` of the prompt of that name. A text cannot close any of the prompt's tags.

    Raises:
        PromptError: the placeholders of the file are not the names of the texts.
    """
    return fill_template(_template(prompt), texts, lambda text: _TAG.sub("< ", encodable(text)))


@cache
def _template(prompt: str) -> str:
    return read_prompt(prompt, PROMPTS)


def end_of(response: str) -> str:
    """The end of a response, as much as the judge is shown."""
    return response[-LONGEST_RESPONSE:]


def read_answer(reply: str) -> str | None:
    """The answer in the last line of a reply, None if it says that there is none.

    Raises:
        Unreadable: an empty reply, or a last line too long for an answer.
    """
    answer = _last_line(reply)
    if not answer or len(answer) > LONGEST_ANSWER:
        raise Unreadable(f"no answer in {reply[:80]!r}")
    return None if answer.rstrip(".").lower() in ("none", "null") else answer


def read_agreement(reply: str) -> bool:
    """Whether the last line of a reply says 1 or yes, and not 0 or no; Unreadable if it says neither."""
    said = _last_line(reply).rstrip(".").lower()
    if said not in ("1", "yes", "0", "no"):
        raise Unreadable(f"neither 1 nor 0 in {reply[:80]!r}")
    return said in ("1", "yes")


def _last_line(reply: str) -> str:
    lines = reply.strip().splitlines() or [""]
    return _LABEL.sub("", lines[-1].strip().strip("*` ")).strip("*` ")
