"""Keys of answers to questions with options: the letter, the text and both together have the same key."""

import re
from collections.abc import Sequence
from functools import lru_cache

from verl_ext.answers.answer_keys import (
    ANOTHER_LETTER,
    CACHE,
    LETTER,
    LETTER_IN_BRACKETS,
    LETTERS,
    MAX_LENGTH,
    TEXT_WITH_CAPITAL,
    Key,
    answer_key,
    without_letter,
)
from verl_ext.answers.normalize import normalize
from verl_ext.answers.words import words_of

_NAMED_LETTER = re.compile(r"(?:option |choice )?[(\[]?([a-z])[)\].:]*", re.IGNORECASE)
_LETTER_WITH_TEXT = re.compile(
    r"(?:option |choice )?[(\[]?(?P<letter>[a-z])(?:[)\]]?[.:,]|[)\]]|\s+-(?=\s)|\s+(?=\())\s*(?P<text>.+)",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER_LETTER_IN_ANY_CASE = re.compile(ANOTHER_LETTER.pattern, re.IGNORECASE)


def canonical(answer: str, choices: Sequence[str] | None = None) -> Key:
    """Return the key of an answer.

    Args:
        choices: the texts of the options A, B, ... in order. An option's letter, its text and both together then have
            the same key. Without choices, only a single letter is an option.

    >>> canonical("2/4") == canonical("0.5")
    True
    >>> canonical("B. 15 cm", choices=["12 cm", "15 cm"]).text
    'B'
    """
    if len(answer) > MAX_LENGTH:
        return Key(f'"{answer}"')
    return _choice_key(answer, tuple(choices)) if choices else answer_key(answer)


@lru_cache(maxsize=CACHE)
def _choice_key(answer: str, choices: tuple[str, ...]) -> Key:
    text = normalize(answer)
    # Options may differ only in what other answers treat as equal: GDA and GAD may be the same triangle. And (b) may be
    # the text of any option. Such answers are first compared with the options' spelling.
    is_spelled = LETTERS.fullmatch(text) or LETTER_IN_BRACKETS.fullmatch(text) or " " in text
    spelled = [position for position, choice in enumerate(choices) if is_spelled and normalize(choice) == text]
    options = [without_letter(normalize(choice), canonical(choice)) for choice in choices]
    key = answer_key(answer)
    with_text = any(kind == "option" for kind, _ in key.details)
    named = spelled[0] if len(spelled) == 1 else None if with_text else _option_position(key, options)
    if named is None and (letter := _NAMED_LETTER.fullmatch(text)):
        named = _letter_position(letter[1])
    if named is None and (both := _LETTER_WITH_TEXT.fullmatch(text) or TEXT_WITH_CAPITAL.fullmatch(text)):
        named, words = _letter_position(both["letter"]), both["text"]
        if named < len(options) and (other := _option_position(answer_key(words), options)) != named:
            if _ANOTHER_LETTER_IN_ANY_CASE.search(words):
                return key
            if other is not None or _is_other_value(answer_key(words), options[named]):
                return Key(f'"{words_of(text)}"')
    return answer_key(answer if named is None or named >= len(options) else chr(ord("A") + named))


def _is_other_value(text: Key, option: Key) -> bool:
    """Whether both keys are mathematics, dates, times or ranges. Other words may paraphrase the option.

    If the option is a letter, its text is in the image and may be any text.
    """
    return not text.is_words and not option.is_words and not LETTER.fullmatch(option.text)


def _letter_position(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _option_position(key: Key, options: Sequence[Key]) -> int | None:
    """Return the position of the only option with this key, or else of the only option that agrees with it."""
    positions = [position for position, option in enumerate(options) if option == key]
    if not positions:
        positions = [position for position, option in enumerate(options) if option.agrees_with(key)]
    if not positions and key.instead is not None:
        return _option_position(key.instead, options)
    return positions[0] if len(positions) == 1 else None
