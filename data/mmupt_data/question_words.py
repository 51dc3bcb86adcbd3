"""Splits a question into words that all its editions share, whatever their notation, spacing and punctuation."""

# The mathematical symbols below look like letters on purpose.
# ruff: noqa: RUF001

import re
import unicodedata
from collections.abc import Sequence

# Runs of two words are too common to tell questions apart; a single typo changes four runs of four.
WORDS_PER_SHINGLE = 3

_TAG = re.compile(r"<image\s*\d*>", re.IGNORECASE)
_HYPHEN = re.compile(r"(?<=[a-z]{2})-(?=[a-z]{2})")
# LaTeX commands; numbers; two Chinese characters, about a word; Greek letters; words; any other character.
_WORD = re.compile(r"\\[a-z]+|\d+(?:\.\d+)?|[一-鿿]{1,2}|[α-ω]|[^\W\d_一-鿿α-ω]+|[^\w\s]")
# `\frac{1}{2}` is 1/2. The parts may nest braces one level deep.
_FRACTION = re.compile(r"\\[dt]?frac\s*" + 2 * r"\{((?:[^{}]|\{[^{}]*\})*)\}\s*")
# LaTeX commands that only change the appearance; `\n` is a line break that was escaped twice.
_FORMATTING = re.compile(
    r"\\(?:math(?:rm|it|bf|cal|bb|sf)|text(?:bf|it|rm|style)?|mbox|rm|bf|boldsymbol|operatorname|displaystyle|"
    r"(?:over|under)line|bar|hat|vec|overrightarrow|left|right|bigg?|q?quad|limits|prime|n)(?![a-z])"
)
# The words around a relation that its symbol lacks: "AB is parallel to CD" is `AB ∥ CD`.
_RELATION = re.compile(r"\b(?:is |are )?(perpendicular|parallel|congruent|similar|equal)(?: to)?\b")
# Replaced before Unicode normalization, which turns some into letters: degree signs, double bars for parallel lines.
_UNNORMALIZED = re.compile(r"[º˚]"), re.compile(r"\|\||//|‖")
# Each word with the symbols, LaTeX commands and abbreviations that stand for it in other editions. Any other command
# or Greek letter becomes its name. Delta is a triangle: `ΔABC` is common, and case is ignored.
_SPELLINGS = {
    "angle": r"∠ ∡ \measuredangle",
    "triangle": r"△ ▵ δ \delta \vartriangle \bigtriangleup",
    "right": "rt",
    "circle": r"⊙ ○ ◯ \odot \bigodot \bigcirc",
    "perpendicular": r"⊥ ⟂ \perp \bot",
    "parallel": "∥",
    "parallelogram": "▱",
    "congruent": r"≅ ≌ \cong",
    "similar": r"∽ ∼ \sim \backsim",
    "arc": r"⌒ ⁀ \overarc \widehat \frown",
    "degrees": r"° \circ degree deg",
    "sqrt": "√",
    "=": "equal equals",
    "*": r"× · ⋅ ∙ \times \cdot \ast",
    "/": r"÷ ∕ ⁄ \div",
    "-": "\N{MINUS SIGN}",
    "<=": r"≤ ≦ ⩽ \le \leq \leqslant",
    ">=": r"≥ ≧ ⩾ \ge \geq \geqslant",
    "!=": r"≠ \ne \neq",
    "rightarrow": r"→ \to",
    "infty": "∞",
}
_SPELLED = {spelling: word for word, spellings in _SPELLINGS.items() for spelling in spellings.split()}
# Meaningful punctuation. All other punctuation is layout, so `(A) 5`, `A. 5` and `A: 5` are the same two words.
_MEANINGFUL = frozenset("-/%*")
# Layout that Unicode does not class as punctuation, such as the dollars around LaTeX formulas.
_LAYOUT = frozenset("$~")


def words(question: str) -> tuple[str, ...]:
    r"""The words, numbers and mathematical symbols of a question, regardless of case, spacing and punctuation.

    Symbols and LaTeX commands become words, because editions of a question differ in them.

    >>> words("<image>Find  X: (A) 2.50 cm (B) -3°")
    ('find', 'x', 'a', '2.5', 'cm', 'b', '-', '3', 'degrees')
    >>> words(r"In $\triangle A B C$, $\angle A=\frac{\pi}{3}$") == words("In △ABC, ∠A = π/3")
    True
    """
    text = _TAG.sub(" ", question)
    for pattern, sign in zip(_UNNORMALIZED, "°∥", strict=True):
        text = pattern.sub(sign, text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    while text != (text := _FRACTION.sub(r" \1/\2 ", text)):
        pass
    text = _FORMATTING.sub(" ", _HYPHEN.sub(" ", text)).replace("rttriangle", "rt triangle")
    found: list[str] = []
    joins = False
    for token in _WORD.findall(_RELATION.sub(r" \1 ", text)):
        letter = len(token) == 1 and "a" <= token <= "z"
        # The points of `A B C` are those of `ABC`.
        if letter and joins:
            found[-1] += token
        elif word := _word(token):
            found.append(word)
        joins = letter
    return tuple(found)


def _word(token: str) -> str:
    """The word of a token; "" for layout."""
    if token in _SPELLED:
        return _SPELLED[token]
    if token[0].isdigit():
        return token.rstrip("0").rstrip(".") if "." in token else token
    if token[0] == "\\" and len(token) > 1:
        return token[1:]
    if "α" <= token[0] <= "ω":
        return unicodedata.name(token).split()[-1].lower()
    category = unicodedata.category(token[0])
    # Punctuation, marks (accents, the circle of a keycap), format characters and freestanding accents such as `^`.
    layout = category[0] in "PMC" or category == "Sk" or token in _LAYOUT
    return "" if layout and token not in _MEANINGFUL else token


def shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """All runs of three words."""
    return frozenset(
        tuple(words[start : start + WORDS_PER_SHINGLE]) for start in range(len(words) - WORDS_PER_SHINGLE + 1)
    )
