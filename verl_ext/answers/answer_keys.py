"""Keys of answers: answers with the same key are equal, so equality is an equivalence relation.

A key is computed from one answer by exact rules, without comparing it to others. docs/answers.md lists which answers
are equal and why. `verl_ext.answers.numeric_equality` decides what keys leave open, such as trigonometric identities.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Optional

from verl_ext.answers.normal_form import Sum, number
from verl_ext.answers.normalize import normalize
from verl_ext.answers.notations import Notation, notation_of
from verl_ext.answers.numeric_equality import real_value
from verl_ext.answers.phrases import NAMES_OF_TIMES, QUANTITY, change_of, kind_of, unit_in_brackets, without_wording
from verl_ext.answers.spellings import MAGNITUDES
from verl_ext.answers.structures import Value, is_relation, list_of, variables
from verl_ext.answers.syntax import parse
from verl_ext.answers.tokens import NotMath
from verl_ext.answers.words import list_of_words, words_of

# Longer answers are compared as text.
MAX_LENGTH = 1000
# Number of cached keys. Answers repeat within a group and often recur in neighboring groups.
CACHE = 4096
# Maximum nesting of phrases around an answer.
MAX_WORDING = 5

# Bold letters are vectors; an accent says so already.
_BOLD_LETTER = re.compile(
    r"(?P<accent>\\(?:vec|overrightarrow|hat|widehat|bar|overline|dot|ddot|tilde)\s*\{?\s*)?"
    r"\\(?:mathbf|boldsymbol|bm)(?:\s*\{\s*(?P<braced>[a-z])\s*\}|\s+(?P<letter>[a-z])(?![A-Za-z]))"
)
_INTEGER = re.compile(r"-?\d{1,15}")
LETTER = re.compile(
    r"[(\[]?([A-Z])[)\].:]*|\(?([a-e])\)[.:]?|(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+[(\[]?([A-Za-z])[)\].:]*"
)
LETTER_IN_BRACKETS = re.compile(r"\([a-e]\)")
_SHORT_AMOUNT = re.compile(r"(-?\d+(?:\.\d+)?)([kKMB])")
_MOLAR = re.compile(r"(\d[\d.]*)\s+M")
_MIXED = re.compile(r"^(\d+)\s+and\s+(?=\d+/\d|\\frac\s*\{\d+\}\s*\{\d+\})")
_POUNDS = re.compile(r"(?<=\d)\s+pounds?(?![A-Za-z])", re.IGNORECASE)
_YEN = re.compile(r"¥\s*(\d[\d,.]*)")
# Cents behind a decimal comma, which may also separate a list.
_CENTS_BEHIND_COMMA = re.compile(
    r"(?=.*(?:€|EUR|euro|\.\d{3},))(?P<sign>-?€?\s*)(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+|\d+),(?P<cents>\d\d)"
    r"(?P<unit>\s*[A-Za-z][^,\d]*)?"
)
# A share and its whole, which other answers leave out.
_SHARE_OF = re.compile(
    r"((?:an?\s+)?[^,;=]{0,40}(?:/\d{1,9}|%|\}|percent|half|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?))\s+of\s+"
    r"(?:the|all|an?|its|their|his|her)\s+[A-Za-z][A-Za-z\s]*",
    re.IGNORECASE,
)
_SMALL_LETTERS = re.compile(r"\(?[a-e]\)?(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+)\(?[a-e]\)?){0,7}")
LETTERS = re.compile(r"[A-Z]{2,8}")
# True/false or yes/no answers to several questions, in order.
_VERDICTS = re.compile(r"[TF](?:[,;\s]+[TF])+|[YN](?:[,;\s]+[YN])+")
# Abbreviations that would otherwise be products of variables.
_NO_PRODUCTS = frozenset({"ne", "nw", "se", "sw", "n/a", "aa", "hl"})
# A single triangle, whose corners can be in any order. In a congruence, their order says which corners correspond.
_TRIANGLE = re.compile(r"△\s*\{?\s*([A-Z]{3})\s*\}?")
# An option with its text if the options are unknown. The letter is then a capital, and "A: 5, B: 6" are two values.
_CAPITAL_WITH_TEXT = re.compile(
    r"(?:[Oo]ption |[Cc]hoice )?"
    r"(?:[(\[]([A-H])[)\]][.:]?|\(?([a-e])\)(?=\s)|([A-H])(?:[.:)]|,(?=\s+[-$\d\\√][^,]*$)|(?=\s+\([^(),A-Z]*\d[^(),A-Z]*\)$)))\s*"
    r"((?!(?:and|or)\b|[,;&])(?:.{2,}|[^A-H]))",
    re.S,
)
TEXT_WITH_CAPITAL = re.compile(r"(?P<text>.*[\d\\].*?)\s+[(\[](?P<letter>[A-H])[)\]]", re.DOTALL)
# Text that names another option: an answer with several options chooses none.
ANOTHER_LETTER = re.compile(
    r"^(?:and|or)\b|^[(\[]?[A-H][)\]]?\s*(?:[,;]|and\b|or\b|$)|[(\[][A-H][)\]]|(?<![A-Za-z])[A-H]\s*[:)]"
)
_OR_ABOUT = re.compile(
    r",?\s+(?:or|which is)\s+(?:about|approximately|roughly)\s+"
    r"|\s*\(\s*(?:≈|approximately|about|or(?=\s*\d*\.\d))\s*(?=[^()]*\)$)"
)
# A value restated in another unit: 3/5 = 60%, 0.6 (60%), 5 km (5000 m).
_OR_IN = re.compile(
    r"(?P<exact>[^%]*(?:[./]\d+|\}))\s*(?:=|\(|\bor\b)\s*(?P<other>[\d.]+\s*%)\)?"
    r"|(?P<first>\d[\d.,]*\s+[a-z]+)\s+\((?P<second>\d[\d.,]*\s+[a-z]+)\)"
)
# The value of an expression that the parser cannot read: an integral, a limit, a derivative at a point, E[X].
_VALUE_OF = re.compile(
    r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?(?:\\(?:i{1,3}nt|oint|lim|sum|prod|det|inf|sup|max|min|dim|Pr)(?![A-Za-z])"
    r"|\\frac\s*\{\s*d[^{}]*\}\s*\{\s*d|[A-Za-z]\s*[\[(])[^<>≤≥≠≈?;]*=\s*(?P<value>[^=,;]+)"
)
_BETWEEN_POINTS = re.compile(r"\s*;\s*(?:or\s+|and\s+)?|\s+or\s+")
_SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\s+)?|\s+and\s+")
_LABELLED = re.compile(
    r"(?!(?:[Tt]he\s+)?(?:final\s+|correct\s+)?(?:[Aa]nswer|[Ss]olution)s?\b)"
    r"(?:the\s+)?(?!reject|discard|ignor)([A-Za-z∠△][A-Za-z∠△' ]{0,40}?)\s*(?:[:=]|\bis\b)\s*([^:=]+)"
)
_MEASURED = re.compile(rf"(?:the\s+|an?\s+)?({QUANTITY})\s+(?:of\s+)?(-?[\d\\√$][^:=]*)", re.IGNORECASE)
_NUMBER_OF_PART = re.compile(r"(?:^|\s*[,;]?(?:\s+and)?\s*)\(([1-9a-h])\)\s*:?\s*(?=[-\d\\√$])")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_SOMETHING = re.compile(r"[^\W_]")
# Statements and quadrants numbered by Roman numerals; (i) alone may be the imaginary unit.
_ROMAN = r"[(]?(?:VI{0,3}|I{1,3}|IV)[)]?"
_ROMAN_LIST = re.compile(
    rf"(?!\(?(?-i:[iv])\)?$)(?:(?:statements?|quadrants?|both|only)\s+){{0,2}}({_ROMAN}(?:(?:\s*[,&]\s*(?:and\s+)?|\s+and\s+){_ROMAN})*)"
    r"(?:\s+only)?",
    re.IGNORECASE,
)
_REMAINDER = re.compile(
    r"(\d+),?\s*(?:with\s+)?(?:an?\s+)?(?:r|rem|remainder)\.?\s*(?:of\s+|=\s*)?(\d+)", re.IGNORECASE
)


@dataclass(frozen=True, order=True)
class Key:
    """The content of an answer. Keys are compared, hashed and sorted by `text`, which shows how the answer was read.

    value: the normal form of a mathematical answer, None for words.
    core: the key without its details, None if it has none.
    details: what other answers may leave out, as (kind, detail) pairs: the unit of a number, the direction of a change,
        a.m. or p.m., the names of values, the text of an option after its letter.
    instead: another possible reading: the decimal of 4π ≈ 12.57, the text of an option with its letter.
    """

    text: str
    value: Value | None = field(default=None, compare=False, repr=False)
    core: Optional["Key"] = field(default=None, compare=False, repr=False)
    details: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    instead: Optional["Key"] = field(default=None, compare=False, repr=False)

    @property
    def bare(self) -> "Key":
        """The key without details."""
        return self.core or self

    @property
    def is_words(self) -> bool:
        """Whether the answer is compared as text because it was not parsed."""
        return self.text.startswith('"')

    def agrees_with(self, other: "Key") -> bool:
        """Whether two keys differ at most in details that one of them leaves out."""
        mine = dict(self.details)
        return self.bare == other.bare and all(mine.get(kind, detail) == detail for kind, detail in other.details)


@lru_cache(maxsize=CACHE)
def is_empty(answer: str) -> bool:
    r"""Whether an answer has no content, as `\text{}` and `?`, and therefore counts as no answer."""
    if _SOMETHING.search(_COMMANDS.sub("", answer)):
        return False
    return not normalize(answer[:MAX_LENGTH]).strip("{}() ")


@lru_cache(maxsize=CACHE)
def answer_key(answer: str) -> Key:
    """Return the key of an answer to a question without options."""
    if _INTEGER.fullmatch(answer):
        value = number(int(answer))
        return Key(value.text, value)
    return _key_of_vectors(answer) if _BOLD_LETTER.search(answer) else _text_key(normalize(answer))


def _key_of_vectors(answer: str) -> Key:
    """Return the key of an answer whose bold letters are vectors; a single bold letter may as well be emphasis."""
    text = normalize(_BOLD_LETTER.sub(_plain_letter, answer))
    plain, vectors = _text_key(text), _text_key(normalize(_BOLD_LETTER.sub(_letter_with_arrow, answer)))
    is_emphasis = sum(map(str.isalnum, text)) == 1 or (vectors.is_words and "×" not in text)
    key, other = (plain, vectors) if is_emphasis else (vectors, plain)
    return key if key.instead or key == other else replace(key, instead=other)


def _plain_letter(match: re.Match[str]) -> str:
    return f"{match['accent'] or ' '}{match['braced'] or match['letter']}"


def _letter_with_arrow(match: re.Match[str]) -> str:
    return match[0] if match["accent"] else rf"\vec{{{match['braced'] or match['letter']}}}"


def _text_key(text: str, depth: int = 0) -> Key:
    if letter := LETTER.fullmatch(text):
        capital = _math_key((letter[1] or letter[2] or letter[3]).upper())
        return replace(capital, instead=_math_key(letter[2])) if letter[2] else capital
    if text[-1:].isdecimal() and (remainder := _REMAINDER.fullmatch(text)) is not None:
        return Key(f'"{int(remainder[1])} remainder {int(remainder[2])}"')
    if triangle := _TRIANGLE.fullmatch(text):
        return _math_key("△" + "".join(sorted(triangle[1])))
    if text.lower() in _NO_PRODUCTS:
        return Key(f'"{text.lower()}"')
    if text[:1] in "TFYN" and _VERDICTS.fullmatch(text):
        return Key(f'"{", ".join(re.findall("[A-Z]", text))}"'.casefold())
    if not text.isupper() and text.rstrip(".").lower() in NAMES_OF_TIMES:
        return Key(f'"{words_of(text.rstrip("."))}"')
    if LETTERS.fullmatch(text) and (several := _letters_key(text)) is not None:
        return several
    if text[:1] in "(IVSsbivOoQq" and len(text) > 1 and (statements := _ROMAN_LIST.fullmatch(text)) is not None:
        numerals = sorted(set(re.findall("[IV]+", statements[1].upper())))
        if len(numerals) > 1:
            return Key(f'"{", ".join(numerals)}"'.casefold())
        if numerals[0] != text:
            return _text_key(numerals[0])
    if "≈" in text or "or " in text or "which" in text or "about" in text or "approx" in text:
        exact, sign, decimal = _OR_ABOUT.sub("≈", text).partition("≈")
        decimal = decimal.strip(" )")
        if sign and exact.strip() and decimal:
            return _approximation_key(exact.strip(), decimal, depth)
    if text[-1:] in "%)" and (twice := _OR_IN.fullmatch(text)) is not None:
        exact, other = twice["exact"] or twice["first"], twice["other"] or twice["second"]
        return _approximation_key(exact, other, depth)
    if text[:1] == "(" and (numbered := _numbered_key(text)) is not None:
        return numbered
    if "=" in text and (points := _points_key(text)) is not None:
        return points
    if ":" in text and (labelled := _labelled_key(text)) is not None:
        return labelled
    if (notation := notation_of(text)) is not None:
        return _notation_key(notation)
    if depth < MAX_WORDING and (option := _option_with_text(text)):
        letter_alone, words = _math_key(option[0]), without_letter(option[1], _text_key(option[1], depth + 1))
        details = (("option", words.bare.text),)
        return Key(f"{letter_alone.text}: {words.bare.text}", letter_alone.value, letter_alone, details, words)
    try:
        key = _math_key(unit_in_brackets(text) or text)
        if (molar := _MOLAR.fullmatch(text)) is not None:
            # The whole key is the other reading, because 5 M may be millions and is not 5.
            return replace(key, instead=replace(_math_key(f"{molar[1]} mol/L"), core=None, details=()))
        return replace(key, instead=_text_key(other, MAX_WORDING)) if (other := _other_reading(text)) else key
    except NotMath:
        return _labelled_key(text) or _key_of_value(text) or _worded_key(text, depth)


def _worded_key(text: str, depth: int) -> Key:
    """Return the key of the decisive part of a phrase, or of all its words if no rule applies."""
    words = Key(f'"{words_of(text)}"')
    if depth < MAX_WORDING:
        if change := change_of(text):
            return _detailed_key(change[0], ("change", change[1]), depth)
        if (part := without_wording(text)) is not None:
            return _text_key(normalize(part), depth + 1)
        if kind := kind_of(text):
            return _detailed_key(kind[0], ("kind", kind[1]), depth)
        if share := _SHARE_OF.fullmatch(text):
            return replace(words, instead=_text_key(share[1], depth + 1))
    # In a phrase such as "large, red ball", the comma has no meaning.
    return words if (listed := list_of_words(text)) is None else Key(f'"{listed}"', instead=words)


def _detailed_key(text: str, detail: tuple[str, str], depth: int) -> Key:
    value = _text_key(text, depth + 1)
    return Key(f"{value.text} {detail[1]}", None, value.bare, tuple(sorted((*value.details, detail))))


def _other_reading(text: str) -> str | None:
    """Return a second reading: B, C for b, c; €1.50 for €1,50; £5 for 5 pounds; 1200 for 1.2K."""
    if _SMALL_LETTERS.fullmatch(text):
        return text.upper()
    if (short := _SHORT_AMOUNT.fullmatch(text)) is not None:
        return f"{short[1]} {MAGNITUDES[short[2].lower()]}"
    if " and " in text and (mixed := _MIXED.sub(r"\1 ", text)) != text:
        return mixed
    if "," in text and (amount := _CENTS_BEHIND_COMMA.fullmatch(text)) is not None:
        return f"{amount['sign']}{amount['whole'].replace('.', '')}.{amount['cents']}{amount['unit'] or ''}"
    if "ound" in text and _POUNDS.search(text):
        return _POUNDS.sub(" GBP", text)
    return f"{yen[1]} JPY" if text[:1] == "¥" and (yen := _YEN.fullmatch(text)) else None


def _letters_key(text: str) -> Key | None:
    """Return the key of capitals without spaces that are a segment or triangle, with several options as second reading.

    Returns None for letters whose order matters: NE, BAD, GAD.
    """
    letters = sorted(text)
    is_triangle = len(text) == 3 and [ord(letter) - ord(letters[0]) for letter in letters] == [0, 1, 2]
    is_choice = letters[-1] <= "H" and len(set(text)) == len(text) and (len(text) == 2 or text == "".join(letters))
    if not is_triangle and not is_choice:
        return None
    return replace(_math_key(" ".join(letters)), instead=_math_key(", ".join(letters)))


def _option_with_text(text: str) -> tuple[str, str] | None:
    """Split "B. 15 cm", "(B) 15 cm" and "15 cm (B)" into letter and text; None for other answers."""
    if match := _CAPITAL_WITH_TEXT.fullmatch(text):
        letter, words = (match[1] or match[2] or match[3]).upper(), match[4]
    elif text[-1:] in (")", "]") and (match := TEXT_WITH_CAPITAL.fullmatch(text)):
        letter, words = match["letter"], match["text"]
    else:
        return None
    words = words.strip()
    return None if ANOTHER_LETTER.search(words) else (letter, words)


def _notation_key(notation: Notation) -> Key:
    core = Key(notation.text)
    details = tuple((kind, _one_spelling(detail) if kind == "unit" else detail) for kind, detail in notation.details)
    if notation.product is not None:
        return replace(_math_key(notation.product), instead=core)
    shown = " ".join((notation.text, *(detail for _, detail in details)))
    instead = None if notation.instead is None else _text_key(notation.instead, MAX_WORDING)
    return Key(shown, None, core if details else None, details, instead)


def _one_spelling(unit: str) -> str:
    """Return the unit of a range in the spelling of the units of numbers."""
    try:
        return dict(parse(f"{unit}1" if unit in "$€£¥" else f"1 {unit}").details).get("unit", unit)
    except NotMath:
        return unit


def _points_key(text: str) -> Key | None:
    """Return the key of the points in x=1, y=2; x=3, y=4."""
    parts = _BETWEEN_POINTS.split(text)
    if len(parts) < 2 or not all(part.count("=") > 1 for part in parts):
        return None
    try:
        readings = [parse(part) for part in parts]
    except NotMath:
        return None
    points = [reading.instead for reading in readings if reading.instead is not None]
    if len(points) < len(parts) or any(is_relation(point) for point in points):
        return None
    value = list_of(points)
    return Key(value.text, value)


def _labelled_key(text: str) -> Key | None:
    """Return the key of several values, each with a label in words or before a colon."""
    parts = [_LABELLED.fullmatch(part) or _MEASURED.fullmatch(part) for part in _SEPARATOR.split(text)]
    if len(parts) < 2 or not all(parts):
        return None
    return _named_values_key([(_label(part[1].strip()), part[2]) for part in parts if part])


def _label(text: str) -> str:
    """Normalize a label, so that A: 50, B: 60 has the same labels as A = 50, B = 60."""
    try:
        return parse(text).value.text
    except NotMath:
        return text.casefold()


def _numbered_key(text: str) -> Key | None:
    """Return the key of numbered answers to the parts of a question, as in (1) 5; (2) 12."""
    _, *parts = _NUMBER_OF_PART.split(text)
    numbers, values = parts[::2], parts[1::2]
    if len(numbers) < 2 or not any("".join(numbers) in row for row in ("123456789", "abcdefgh")) or "" in values:
        return None
    return _named_values_key([(f"({number})", value) for number, value in zip(numbers, values, strict=True)])


def _named_values_key(named: Sequence[tuple[str, str]]) -> Key | None:
    try:
        pairs = [(label, _math_key(value)) for label, value in named]
    except NotMath:
        return None
    values = list_of(key.bare.value for _, key in pairs if key.bare.value is not None)
    names = ", ".join(sorted(f"{label}={key.bare.text}" for label, key in pairs))
    details = {"names": names}
    if units := {unit for _, key in pairs if (unit := dict(key.details).get("unit"))}:
        details["unit"] = units.pop() if len(units) == 1 else list_of(key.value for _, key in pairs if key.value).text
    shown = ", ".join(sorted(f"{label}={key.text}" for label, key in pairs))
    return Key(f"{{{shown}}}", None, Key(values.text, values), tuple(details.items()))


def _math_key(text: str) -> Key:
    reading = parse(text)
    core = None if reading.core is None else Key(reading.core.text, reading.core)
    instead = None if reading.instead is None else Key(reading.instead.text, reading.instead)
    return Key(reading.value.text, reading.value, core, reading.details, instead)


def _key_of_value(text: str) -> Key | None:
    """Return the key of the right side if the left side is an integral or the like, or E[X] with a constant value."""
    match = _VALUE_OF.fullmatch(text)
    try:
        key = match and _math_key(match["value"])
    except NotMath:
        return None
    if not key or key.bare.value is None or (text[0] != "\\" and variables(key.bare.value)):
        return None
    return key


def _approximation_key(exact: str, decimal: str, depth: int) -> Key:
    """Return the key of an approximation: of the exact value in 4π ≈ 12.57, of the only value in x ≈ 12.57."""
    approximation = _text_key(decimal, depth + 1) if depth < MAX_WORDING else Key(f'"{words_of(decimal)}"')
    try:
        key = _math_key(exact)
    except NotMath:
        # An exact part with digits that was not parsed, as in not 0.25 (25%), is neither value.
        return Key(f'"{words_of(exact)}"', instead=approximation) if re.search(r"\d", exact) else approximation
    is_name = key.bare.value is None or variables(key.bare.value)
    return approximation if is_name else replace(key, instead=approximation)


def number_of(answer: str) -> float | None:
    """Return the value of an answer that is a real number, without its unit; None for other answers.

    >>> number_of(r"\\frac{3}{2}")
    1.5
    """
    if len(answer) > MAX_LENGTH or notation_of(text := normalize(answer)) is not None:
        return None
    try:
        value = _math_key(text).bare.value
    except NotMath:
        return None
    return real_value(value) if isinstance(value, Sum) and not variables(value) else None


def without_letter(text: str, key: Key) -> Key:
    """Return the key of an option's text, in which (b) is no letter: the second option may be figure (d)."""
    return key.instead if key.instead is not None and LETTER_IN_BRACKETS.fullmatch(text) else key
