"""Finds the question in a response. Handles arbitrary model output in a few passes over the text. Pure."""

import re
import unicodedata

from verl_ext.control_text import PLACEHOLDER, lost_characters

# Maximum length in characters. Longer responses, such as truncated ones, contain no question.
LONGEST_RESPONSE = 8_000
# Maximum nesting of labels and quotes in a question.
DEEPEST = 12

_THOUGHT_END = "</think>"
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_LABEL = re.compile(
    r"^[ \t>#*_\"'“]{0,8}(?:(?:(?:the|a|my)[ \t]+)?(?:new|different|another|generated|self-generated)[ \t]+)?"
    r"(?:question|q)[ \t]{0,2}\d{0,3}[ \t]{0,2}[*_]{0,3}[ \t]{0,2}[:：][*_ \t]{0,4}",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_LABEL = re.compile(
    r"^[ \t>#*_]{0,8}(?:answer|solution|explanation|reasoning|rationale|a)[ \t]{0,2}[*_]{0,3}[ \t]{0,2}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
# List numbers and bullets only: letters would match answer options.
_ITEM = re.compile(r"^[ \t]{0,8}(?:\d{1,3}[.)]|[-*•])[ \t]{1,4}(?=\S)", re.MULTILINE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "`": "`", "**": "**", "__": "__", "*": "*"}


def question_in(response: str) -> str | None:
    """Return the last question of a response without labels, fences, quotes and any answer that follows.

    None if there is no question, or if the text contains control or lost characters.

    >>> question_in("Sure! Here it is:\\n**Question:** \\"How long is AB?\\"\\nAnswer: 5")
    'How long is AB?'
    """
    if len(response) > LONGEST_RESPONSE:
        return None
    text = response.replace("\r\n", "\n").replace("\r", "\n")
    if lost_characters(text):
        return None
    text = unicodedata.normalize("NFC", text)
    # Repeated, because labels and quotes may be nested.
    for _ in range(DEEPEST):
        text, before = _stripped(text), text
        if text == before:
            return text or None
    return None


def _stripped(text: str) -> str:
    text = text.rpartition(_THOUGHT_END)[2].replace(PLACEHOLDER, " ")
    text = _FENCE.sub("", text)
    *_, label = [None, *_LABEL.finditer(text)]
    if label:
        text = text[label.end() :]
    if answer := _ANSWER_LABEL.search(text):
        # The question precedes the answer, unless the response starts with the answer.
        text = text[: answer.start()].strip() or text[answer.end() :]
    text = "\n".join(line for line in (" ".join(line.split()) for line in text.split("\n")) if line)
    first, newline, rest = text.partition("\n")
    if newline and first.endswith((":", "：")):
        text = rest
    items = list(_ITEM.finditer(text))
    if items and items[0].start() == 0:
        questions = [item for item in items if re.search("[?？]", text[item.end() :].partition("\n")[0])]
        if len(items) == 1:
            text = text[items[0].end() :]
        elif questions:
            following = [item.start() for item in items if item.start() > questions[-1].start()]
            text = text[questions[-1].end() : following[0] if following else len(text)]
    return _unquoted(text.strip())


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES.items():
        inner = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and closing not in inner:
            return inner.strip()
    return text
