r"""Extract the last answer of a response, by one of three common conventions."""

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Literal

from verl_ext.answers.answer_keys import is_empty

_BOX = r"(?P<box>\\(?:boxed|fbox)\s*\{)"
# TeX would put a single token into a box without braces, but the model means the whole number, letter or fraction.
_UNBRACED_BOX = (
    r"(?P<unbraced>\\(?:boxed|fbox)\s*(?P<content>-?\d(?:[\d,.]*\d)?(?:/\d+)?|[A-Z](?![A-Za-z])"
    r"|-?\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|-?\d*\\sqrt\s*\{[^{}]*\}))"
)
_ANY_BOX = re.compile(r"\\(?:boxed|fbox)")
# Escaped braces match as tokens of their own, so they neither open nor close a group.
_BRACES = re.compile(_BOX + "|" + _UNBRACED_BOX + r"|\\[{}]|(?P<open>\{)|(?P<close>\})")
# Boxes longer than this are taken as not empty without a check, which bounds the work on nested boxes.
_LONG = 200
# Text that joins two boxes into one answer, as in x = 1 or x = 2. Matching takes linear time, because each space can
# match in one place only.
_CONNECTIVE = re.compile(
    r"[\s$]*(?:(?:,\s*)?(?P<word>or|and|或|或者|和|与)|,)[\s$]*(?:[A-Za-z](?:_\{?\d\}?)?\s*=[\s$]*)?", re.IGNORECASE
)
_TAG = re.compile(r"<(?P<close>/?)answer>", re.IGNORECASE)
_PHRASE = re.compile(r"\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b\s*:?", re.IGNORECASE)
# A box may contain the end of a sentence; a full stop between digits is a decimal point.
_BOX_OR_END = re.compile(_BOX + r"|[.!?](?=\s|$)|[。\n]")

Extraction = Literal["boxed", "answer_tag", "answer_is"]


def _boxes(response: str) -> list[tuple[slice, slice]]:
    """Return the slices of each outermost box that is not empty, and of its content."""
    # For each open brace, the start of its box and of the box's content; None for a brace that opens no box.
    opened: list[tuple[int, int] | None] = []
    boxes: list[tuple[slice, slice]] = []
    # Braces before the first box can be skipped: they close after all boxes.
    first = _ANY_BOX.search(response)
    for token in _BRACES.finditer(response, first.start()) if first else ():
        if token["box"]:
            opened.append((token.start(), token.end()))
        elif token["unbraced"]:
            boxes.append((slice(*token.span()), slice(*token.span("content"))))
        elif token["open"]:
            opened.append(None)
        elif token["close"] and opened and (begins := opened.pop()) is not None:
            begin, content = begins
            while boxes and boxes[-1][0].start > begin:
                boxes.pop()
            if token.start() - content > _LONG or not is_empty(response[content : token.start()]):
                boxes.append((slice(begin, token.end()), slice(content, token.start())))
    return boxes


def _last_box(response: str) -> str | None:
    """Return the content of the last box that is not empty, including boxes joined to it by "or" or "and"."""
    answers: list[str] = []
    separators: list[str] = []
    end = 0
    for whole, content in _boxes(response):
        joined = _CONNECTIVE.fullmatch(response, end, whole.start) if answers else None
        if joined is None:
            answers, separators = [], []
        else:
            separators.append(f" {joined['word']} " if joined["word"] else ", ")
        answers.append(response[content])
        end = whole.stop
    if set(separators) <= {", "}:
        return answers[-1] if answers else None
    return "".join(part for pair in zip_longest(map(str.strip, answers), separators, fillvalue="") for part in pair)


def _last_tag(response: str) -> str | None:
    begin: int | None = None
    last: str | None = None
    for tag in _TAG.finditer(response):
        if not tag["close"]:
            begin = tag.end()
        elif begin is not None:
            content, begin = response[begin : tag.start()], None
            last = last if is_empty(content) else content
    return last and (_last_box(last) or last)


def _last_statement(response: str) -> str | None:
    begin = None
    for phrase in _PHRASE.finditer(response):
        begin = phrase.end()
    if begin is None:
        return None
    stated = response[begin:].lstrip()
    end = _BOX_OR_END.search(stated)
    if end is not None and not end["box"]:
        stated = stated[: end.start()]
    return _last_box(stated) or stated.strip("$*` \t").rstrip(".")


_EXTRACTIONS: Mapping[Extraction, Callable[[str], str | None]] = {
    "boxed": _last_box,
    "answer_tag": _last_tag,
    "answer_is": _last_statement,
}


def extract_answer(response: str, extraction: Extraction = "boxed") -> str | None:
    r"""Return the last answer of a response, trimmed, or None if there is none or it is empty.

    Runs in linear time on any text.

    Args:
        extraction: where to look for the answer.
            "boxed": in `\boxed{...}` or `\fbox{...}`, also with a space before the brace, or without braces, as in
            `\boxed 5`. Braces inside must balance; `\{` and `\}` do not count. The box that closes last counts: the
            outermost of nested boxes, and the last closed box if a later one is never closed. Empty boxes are ignored.
            Boxes with only "or" or "and" between them are one answer: `\boxed{1}` or `\boxed{2}` is "1 or 2".
            "answer_tag": between `<answer>` and `</answer>`, in upper or lower case; a box inside is unwrapped.
            "answer_is": from "the answer is", "the final answer is" or "the correct answer is" to the end of the
            sentence, without surrounding dollar signs, asterisks, backticks and a full stop; a box is unwrapped.

    >>> extract_answer(r"2 + 4 = 6 . so \boxed{\frac{6}{1}}")
    '\\frac{6}{1}'
    >>> extract_answer("so 6") is None
    True
    >>> extract_answer("The answer is $6.5$. Done.", "answer_is")
    '6.5'
    """
    answer = _EXTRACTIONS[extraction](response)
    return None if answer is None or is_empty(answer) else answer.strip()


def verdict_in(reply: str) -> str | None:
    """Return the yes or no at the start or end of a reply's last line; None if it has neither or both."""
    words = re.findall(r"[a-z]+", reply.strip().rpartition("\n")[2].lower())
    verdicts = {*words[:1], *words[-1:]} & {"yes", "no"}
    return verdicts.pop() if len(verdicts) == 1 else None
