"""Escapes control text in prompts: text of a row that a trainer or tokenizer would not read as plain characters.

`<video>` in a question makes veRL look for a video, and `<|im_end|>` closes the turn. Rows keep such text unchanged.
`plain_messages` makes the prompts for training, validation, evaluation and synthesis, and puts a space after its first
character: `< video>`, `< |im_end|>`. Pure.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

# veRL's placeholder for an image in a message.
PLACEHOLDER = "<image>"
# veRL splits messages at these (verl/utils/dataset/rl_dataset.py, RLHFDataset._build_messages).
MEDIA = (PLACEHOLDER, "<video>", "<audio>")
# Common tokens of chat models, the Qwen-VL models among them.
_LIKELY = r"<\|[^<>|\s]{1,40}\|>|</?(?:s|unk|pad|bos|eos|mask|think|tool_call|tool_response)>"


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The strings that a `transformers` tokenizer reads as single tokens anywhere in a text.

    These are its special tokens and the added tokens that look like tags.
    """
    added = tokenizer.added_tokens_decoder.values()
    return tuple(
        sorted(one.content for one in added if len(one.content) > 1 and (one.special or one.content[0] in "<["))
    )


def control_texts(text: str, tokens: Iterable[str] | None = None) -> list[str]:
    """The control texts in a text, each once, without image placeholders.

    `tokens` come from `control_tokens`; None, for an unknown model, stands for the tokens of common models.
    """
    found = _pattern(None if tokens is None else tuple(tokens)).findall(text)
    return [one for one in dict.fromkeys(found) if one != PLACEHOLDER]


def escaped(text: str, tokens: Iterable[str] | None = None) -> str:
    """The text with a space after the first character of every control text; `tokens` as in `control_texts`.

    >>> escaped("Is <image> or <|im_end|> a tag?")
    'Is < image> or < |im_end|> a tag?'
    """
    pattern = _pattern(None if tokens is None else tuple(tokens))
    return pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def lost_characters(text: str) -> list[str]:
    """The replacement, control and surrogate characters of a text, each once and sorted.

    U+FFFD replaces bytes of another encoding. Tabs and line breaks, including U+0085, are text.
    """
    controls = {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs")} - {*"\t\n\r\x85"}
    return sorted(controls | {sign for sign in text if sign == "\ufffd"})


def plain_messages(
    messages: Iterable[Mapping[str, Any]], images: int, tokens: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """Messages with one placeholder `<image>` per image, and all other control text escaped.

    Surplus placeholders are escaped as text, and missing ones are put in front of the last message. Content that is not
    text is left unchanged. `tokens` as in `control_texts`.
    """
    left = images
    plain = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            before, *parts = (escaped(part, tokens) for part in content.split(PLACEHOLDER))
            places = [PLACEHOLDER] * min(left, len(parts)) + [escaped(PLACEHOLDER)] * max(0, len(parts) - left)
            left -= min(left, len(parts))
            content = before + "".join(place + part for place, part in zip(places, parts, strict=True))
        plain.append({**message, "content": content})
    if left and isinstance(plain[-1]["content"], str):
        plain[-1]["content"] = PLACEHOLDER * left + plain[-1]["content"]
    return plain


@lru_cache
def _pattern(tokens: Sequence[str] | None) -> re.Pattern[str]:
    # The longest first, because a token may be a prefix of another.
    known = map(re.escape, sorted((*MEDIA, *(tokens or ())), key=len, reverse=True))
    return re.compile("|".join([*known, *([_LIKELY] if tokens is None else [])]))
