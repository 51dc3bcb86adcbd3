"""Normalize answers in words, and lists of words, whose order does not matter."""

import re

from verl_ext.answers.phrases import COMPARATIVES, NAMES_OF_TIMES

# Spelling variants and synonyms, in lower case.
_SAME_WORD = NAMES_OF_TIMES | {
    "solutions": "solution", "grey": "gray", "anticlockwise": "counterclockwise", "centre": "center", "colour": "color",
    "矩形": "长方形", "parallelograms": "parallelogram", "can't": "cannot",
    **{f"周{day}": f"星期{day}" for day in "一二三四五六日"},
}  # fmt: skip
_SAME_PHRASE = {
    "infinitely many": "infinitely many solution", "infinite solution": "infinitely many solution",
    "infinite": "infinitely many solution", "an infinite number of solution": "infinitely many solution",
    "dne": "does not exist", "是的": "是", "不是的": "不是", "对的": "对", "正确的": "正确", "错误的": "错误",
    **{"side side side": "sss", "side angle side": "sas", "angle side angle": "asa", "angle angle side": "aas",
       "angle angle": "aa", "hypotenuse leg": "hl"},
    **{f"isosceles {kind}": f"{kind} isoscele" for kind in ("right", "acute", "obtuse")},
    "north east": "northeast", "north west": "northwest", "south east": "southeast", "south west": "southwest",
}  # fmt: skip
_PREFIX = re.compile(r"\b(non|anti|counter|(?:co|e)(?=-)|can(?= not\b))[- ](?=[a-z])")
_HYPHEN = re.compile(r"(?<=[^\W\d_])\s*-\s*(?=[^\W\d_])")
_SPACE_AROUND_SYMBOL = re.compile(r"\s*([^\w\s])\s*")
_BRACED_LETTER = re.compile(r"([_^])\{(\w)\}")
# Formulas that cannot be parsed as products of names, also with a number or water: H_2SO_4, 2Na^+, CuSO_4*5H_2O.
_MOLECULE = r"[A-Z][a-z]?(?:[A-Z][a-z]?|[()_{}\d])*(?:\^\{?\d?[+-]\}?|[+-])?"
_CHEMICAL = re.compile(rf"(?:\d{{1,2}}(?=[^\d]+[\d+-]))?{_MOLECULE}(?:\*\d{{0,2}}{_MOLECULE})?")
_INDEX = re.compile(r"[_{}]")
# The charge of Na+.
_CHARGE = re.compile(r"(?<=[A-Za-z)])(?=[+-]$)")
# Charges without ^, where only one ion can be meant: Ca2+, NH4+, NO3-, SO42-; not O2-, FeCl2+.
_PLAIN_ION = re.compile(
    r"((?!He|Ne|Ar|Kr|Xe|Rn|Cl|Br|At)[A-Z][a-z])([2-4]\+)|([A-Z][A-Za-z\d()]*H\d)(\+)"
    r"|([A-Z][A-Za-z\d()]*(?:[OHFI)]|Cl|Br)[2-9])([2-4]?-)"
)
_ARROW = re.compile(r"-{1,2}>|→")
# Symmetric relations: AB ∥ CD is the same as CD ∥ BA.
_MUTUAL = re.compile(r"\s*(\w{1,2})\s*([∥⊥])\s*(\w{1,2})\s*")
# U.S.A. and Mr. Smith.
_ABBREVIATION = re.compile(r"\b([A-Z](?=\.[A-Z]\b)|Mrs?|Ms|Dr|St|Mt|Jr)\.")
_PLURAL = re.compile(r"(?<=[a-z]{3}[^\W\dsui])s$")
_SEPARATOR = re.compile(
    r"\.?\s*[,;]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+|\s*&\s*|(?<=[\u4e00-\u9fff])[和与及或](?=[\u4e00-\u9fff])"
)
_OR = re.compile(r"\sor\s|或")
_AND = re.compile(r"\sand\s|&|[和与及]")
# Longer parts of a list are clauses.
_MAX_WORDS = 3
_MAX_CHARACTERS = 6
# Parts with these words are clauses, too, or ordered answers to the parts of a question.
_NO_ITEMS = frozenset({
    "is", "are", "was", "were", "be", "has", "have", "had", "do", "does", "can", "will", "not", "no", "yes", "true",
    "false", "correct", "incorrect", "right", "wrong", "it", "they", "he", "she", "we", "you", "this", "that", "these",
    "those", "there", "then", "than", "if", "because", "since", "so", "but", "when", "where", "who", "which", "as",
    "both", "neither", "nor", "either", "increasing", "decreasing", "increase", "decrease", "positive", "negative",
    "left", "up", "down", "even", "odd", "parallel", "perpendicular", "maximum", "minimum", "first", "second", "before",
    "after", "always", "sometimes", "never", "possible", "impossible", "convergent", "divergent", "converges",
    "diverges", "same", "different", "increases", "decreases", "increased", "decreased", "rise", "rises", "fall",
    "falls", "gains", "loses", "upward", "downward", "upwards", "downwards", "clockwise", "counterclockwise",
    "anticlockwise", "doubled", "halved", "doubles", "halves", "high", "low",
} | COMPARATIVES)  # fmt: skip
_NO_CHINESE_ITEMS = re.compile("[是否不对错为的大小增减正负左右上下于比等能有√×✓✗✔✘]")


def words_of(text: str) -> str:
    """Normalize words: case, spaces around symbols, commas and hyphens do not matter."""
    if not (packed := text.replace(" ", "")).isalpha() and _CHEMICAL.fullmatch(packed):
        text = "*".join(map(_formula, packed.split("*")))
    elif "→" in text or "->" in text:
        # A reaction or an ordering; the order of reactants does not matter.
        sides = _ARROW.split(_INDEX.sub("", text.replace(" ", "")))
        text = "→".join("+".join(sorted(side.split("+"))) for side in sides)
    elif (relation := _MUTUAL.fullmatch(text)) is not None:
        text = relation[2].join(sorted("".join(sorted(relation[side])) for side in (1, 3)))
    elif "." in text:
        text = _ABBREVIATION.sub(r"\1", text)
    text = _PLURAL.sub("", text.casefold())
    symbols = _BRACED_LETTER.sub(r"\1\2", _SPACE_AROUND_SYMBOL.sub(r"\1", text))
    words = _HYPHEN.sub(" ", _PREFIX.sub(r"\1", symbols)).replace(",", " ").split()
    return _SAME_PHRASE.get(phrase := " ".join(_SAME_WORD.get(word, word) for word in words), phrase)


def _formula(text: str) -> str:
    """Write a chemical formula without the marks of its indices, and with ^ before its charge."""
    formula = text.lstrip("0123456789")
    number = text.removesuffix(formula)
    if (ion := _PLAIN_ION.fullmatch(formula)) is not None:
        formula = "^".join(filter(None, ion.groups()))
    return number + _CHARGE.sub("^", _INDEX.sub("", formula))


def list_of_words(text: str) -> str | None:
    """Sort a list of words such as "red and blue"; None for other text."""
    inner = text.removeprefix(r"\{").removesuffix(r"\}").removeprefix("{").removesuffix("}")
    parts = _SEPARATOR.split(inner.casefold())
    alternatives = bool(_OR.search(inner))
    if len(parts) < 2 or not all(map(_is_item, parts)) or (alternatives and _AND.search(inner)):
        return None
    return f" {'or' if alternatives else 'and'} ".join(sorted(map(words_of, parts)))


def _is_item(part: str) -> bool:
    words = part.split()
    if not part.isascii():
        return len(part) <= _MAX_CHARACTERS and len(words) == 1 and not _NO_CHINESE_ITEMS.search(part)
    are_words = all(word.replace("-", "").replace("'", "").isalpha() for word in words)
    return 0 < len(words) <= _MAX_WORDS and are_words and not _NO_ITEMS & set(words)
