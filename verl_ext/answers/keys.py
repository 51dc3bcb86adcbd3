"""Keys of answers: answers with the same key are the same answer, so that equality is an equivalence relation.

A key is read off an answer by exact rules, without comparing it to another one; see docs/answers.md for what is equal
and why. What keys cannot decide, as trigonometric identities, is left to `verl_ext.answers.comparison`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Optional

from verl_ext.answers.algebra import Sum, number
from verl_ext.answers.forms import Value, variables
from verl_ext.answers.numeric import value_of
from verl_ext.answers.spelling import plain
from verl_ext.answers.syntax import read
from verl_ext.answers.tokens import NotMath

# A longer answer is compared by its letters only.
MAX_LENGTH = 1000
# Answers whose keys are kept: those of a group are few, and are often those of the groups around it.
CACHE = 4096

_INTEGER = re.compile(r"-?\d{1,15}")
_LETTER = re.compile(r"[(\[]?([A-Z])[)\].:]*")
_NAMED_LETTER = re.compile(r"(?:option |choice )?[(\[]?([a-z])[)\].:]*", re.IGNORECASE)
_LETTER_WITH_TEXT = re.compile(r"(?:option |choice )?[(\[]?([a-z])(?:[)\]]?[.:,]|[)\]])\s*(.+)", re.I | re.S)
_SPACE_AT_SIGN = re.compile(r"\s*([^\w\s])\s*")


@dataclass(frozen=True, order=True)
class Key:
    """What an answer says. Keys are equal, hashed and sorted by `text`, which shows what was understood.

    value: the normal form of mathematics, None for words. bare: for a number with a unit, the key of the number alone.
    unit: of such a number, None for all others.
    """

    text: str
    value: Value | None = field(default=None, compare=False, repr=False)
    bare: Optional["Key"] = field(default=None, compare=False, repr=False)
    unit: str | None = field(default=None, compare=False, repr=False)

    @property
    def is_bare_number(self) -> bool:
        """Whether it is a number without a unit."""
        return self.unit is None and isinstance(self.value, Sum) and self.value.is_number


def canonical(answer: str, choices: Sequence[str] | None = None) -> Key:
    """Return the key of an answer.

    Args:
        answer: as it was extracted.
        choices: the texts of the options A, B, ... in their order. With them, the key of an option's letter is that of
            its text, with or without the letter before it. Without, a letter is one only where nothing else is said.

    >>> canonical("2/4") == canonical("0.5")
    True
    >>> canonical("B. 15 cm", choices=["12 cm", "15 cm"]).text
    'B'
    """
    if len(answer) > MAX_LENGTH:
        return Key(f'"{answer}"')
    return _of_choice(answer, tuple(choices)) if choices else _of_answer(answer)


@lru_cache(maxsize=CACHE)
def _of_answer(answer: str) -> Key:
    if _INTEGER.fullmatch(answer):
        value = number(int(answer))
        return Key(value.text, value)
    text = plain(answer)
    letter = _LETTER.fullmatch(text)
    try:
        reading = read(letter[1] if letter else text)
    except NotMath:
        return Key(f'"{_words(text)}"')
    bare = None if reading.bare is None else Key(reading.bare.text, reading.bare)
    return Key(reading.value.text, reading.value, bare, reading.unit)


def number_of(answer: str) -> float | None:
    """Return the value of an answer that is a real number, without its unit; None for everything else.

    >>> number_of(r"\\frac{3}{2}")
    1.5
    """
    key = canonical(answer)
    key = key.bare or key
    return value_of(key.value) if isinstance(key.value, Sum) and not variables(key.value) else None


def _words(text: str) -> str:
    """Words are the same in capitals and with any spaces around signs."""
    return _SPACE_AT_SIGN.sub(r"\1", text).casefold()


@lru_cache(maxsize=CACHE)
def _of_choice(answer: str, choices: tuple[str, ...]) -> Key:
    options = [canonical(choice) for choice in choices]
    text = plain(answer)
    named = _option_of(_of_answer(answer), options)
    if named is None and (letter := _NAMED_LETTER.fullmatch(text)):
        named = _position(letter[1])
    if named is None and (both := _LETTER_WITH_TEXT.fullmatch(text)):
        # A letter with the text of another option is neither.
        named = _position(both[1]) if _option_of(_of_answer(both[2]), options) == _position(both[1]) else None
    return _of_answer(answer if named is None or named >= len(options) else chr(ord("A") + named))


def _position(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _option_of(key: Key, options: Sequence[Key]) -> int | None:
    """The only option with this key, or with this number and a unit where the answer has none."""
    found = [position for position, option in enumerate(options) if option == key]
    if not found and key.is_bare_number:
        found = [position for position, option in enumerate(options) if option.bare == key]
    return found[0] if len(found) == 1 else None
