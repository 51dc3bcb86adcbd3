"""Tokenize normalized answers into numbers, names, functions, units, words and symbols."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from verl_ext.answers.units import (
    CHINESE_UNITS,
    IN_ORDER,
    ORDINAL,
    POWERS,
    POWERS_BEHIND,
    PRODUCTS,
    QUOTIENTS,
    is_like_a_product,
    unit_of,
)

MAX_TOKENS = 400
# Marks the name of a vector; the arrow in A → B is another character.
VECTOR = "\u20d7"
CLOSING = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), r"\{": (r"\}",)}


class NotMath(ValueError):
    """The text is not mathematics."""


class Token(NamedTuple):
    kind: str  # number, name, function, command, unit, power, word, sub, and, symbol, end
    text: str
    spaced: bool  # whether white space stands before it


# Letters of words: accented Latin, Cyrillic, Arabic, Indic, kana and Hangul. Greek letters are names.
_OTHER = (
    r"\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0400-\u052f\u0590-\u06ff\u0900-\u0e7f\u1e00-\u1eff"
    r"\u3040-\u30ff\uac00-\ud7af"
)
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<repeating>\d*\.\d*\\overline\s*\{\s*\d+\s*\})
    |(?P<ordinal>\d+(?:st|nd|rd|th)(?=\s*$|\s+IN_ORDER\s*$))
    |(?P<word>0[xX][0-9A-Fa-f]+(?![A-Za-z\d]))
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z\d.]))?)
    |(?P<decorated>(?:[∠△⊙\u20d7]|\\(?:overline|bar|hat|widehat|tilde|dot|ddot)(?![A-Za-z]))
        \s*(?:\{[^{}]*\}|[A-Za-z]+\d?|\d))
    |(?P<command>\\[A-Za-z]+|\\[{}])
    |(?P<metric>[nmkMGμ]?Ω|μ(?:[ACFHJLNTVWgms]|Pa)(?![A-Za-z]))
    |(?P<foreign>[A-Za-z]*[OTHER][A-Za-zOTHER]*)
    |(?P<letters>[A-Za-z]+)
    |(?P<chinese>[\u4e00-\u9fff]+)
    |(?P<sub>_\s*(?:\{[^{}]*\}|[A-Za-z0-9]))
    |(?P<degrees>°[CFK]?)
    |(?P<symbol><=|>=|!=|==|:=|\*\*|.)""".replace("OTHER", _OTHER).replace("IN_ORDER", IN_ORDER),
    re.VERBOSE | re.DOTALL,
)
# No thousands follow a zero: 0,125 is a list or a decimal.
_THOUSANDS = re.compile(
    r"(?!0+[, ])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!,?\d)|\d{1,3}(?: \d{3})+(?:\.\d+)?(?!\d)(?! ?\d*/\d{3}))"
)
FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "ln": "ln", "log": "log",
    "lg": "log", "exp": "exp", "max": "max", "min": "min", "gcd": "gcd", "lcm": "lcm", "abs": "abs",
}  # fmt: skip
_ROMAN = re.compile("[IVX]{2,}")
_NAMED = {"pi": "π", "infty": "∞", "inf": "∞", "infinity": "∞", "Infinity": "∞", "INFINITY": "∞", "theta": "θ",
          "alpha": "α", "beta": "β"}  # fmt: skip
# After a number, these words multiply it and are not what it counts.
NUMBER_WORDS = {
    "dozen": "12", "hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000",
    "trillion": "1000000000000", "lakh": "100000", "crore": "10000000",
}  # fmt: skip
NUMBER_WORDS |= {"tens": "10"} | {f"{word}s": digits for word, digits in NUMBER_WORDS.items()}
FRACTION_WORDS = {"half": "2", "halves": "2"} | {
    f"{word}{plural}": digits for plural in ("", "s") for word, digits in {
        "third": "3", "quarter": "4", "fourth": "4", "fifth": "5", "sixth": "6", "seventh": "7", "eighth": "8",
        "ninth": "9", "tenth": "10", "twelfth": "12", "hundredth": "100",
    }.items()
}  # fmt: skip
_CHINESE_POWERS_OF_TEN = {"百": "100", "千": "1000", "万": "10000", "亿": "100000000"}
_CHINESE_PART = re.compile("|".join((*CHINESE_UNITS, "平方", "立方", "每", *_CHINESE_POWERS_OF_TEN)))
# Letters right after a number are units only where they cannot be variables: 10m/s, and 12m as a whole answer.
_LONE_UNIT = re.compile(
    r"[mgsLNJWVA](?=\s*/\s*\(?(?:s|h|hr|min|sec|second|hour|minute|m|cm|kg|L|mL|mol)(?![A-Za-z]))|[mgLNJWVA](?=$)"
    r"|m(?=\^?\{?[23]\}?$)"
)
_ANGLE = re.compile("∠[A-Z]{3}")
# The unit vectors i, j and k. Bold letters have already lost their decoration.
_UNIT_VECTOR = re.compile(f"(?:{VECTOR}|hat|widehat)([ijk])")
_COMPASS = re.compile("[NS][EW]|[EW][NS]")
# A product such as nRT or kQq, whose capitalization no word and no element has.
_FORMULA = re.compile("[a-z]{1,2}[A-Z][A-Za-z]?")
# Short words, which would otherwise be products of variables.
_SHORT_WORDS = frozenset({
    "no", "on", "or", "is", "in", "it", "of", "to", "up", "us", "an", "at", "as", "am", "pm", "be", "by", "do", "go",
    "he", "if", "me", "my", "so", "we", "ok", "hi", "oh", "ya", "ans",
})  # fmt: skip


def _letters(run: str, follows_number: bool, spaced: bool, ends: bool, is_factor: bool) -> Iterator[Token]:
    """Classify a run of letters: a function, a unit, an English word, or variables side by side."""
    lower = run.lower()
    # After a number, min is a unit, and so is sec without an argument.
    is_unit = follows_number and (run == "min" or (run == "sec" and ends))
    if (run in FUNCTIONS or (lower in FUNCTIONS and len(run) > 2)) and not is_unit:
        yield Token("function", FUNCTIONS[lower], spaced)
    elif run == "sqrt":
        yield Token("command", r"\sqrt", spaced)
    elif run in _NAMED:
        yield Token("name", _NAMED[run], spaced)
    elif lower in ("and", "or"):
        yield Token("and", lower, spaced)
    elif lower in POWERS or lower in POWERS_BEHIND or lower == "per":
        yield Token("power", lower, spaced)
    elif lower in QUOTIENTS or (follows_number and run in PRODUCTS):
        first, second = QUOTIENTS.get(lower) or PRODUCTS[run]
        operator = "/" if lower in QUOTIENTS else "*"
        yield from (Token("unit", first, spaced), Token("symbol", operator, False), Token("unit", second, False))
    elif len(run) > 1 and follows_number and (unit := unit_of(run)):
        yield Token("unit", unit, spaced)
    elif follows_number and lower in NUMBER_WORDS:
        yield from (Token("symbol", "*", spaced), Token("number", NUMBER_WORDS[lower], spaced))
    elif follows_number and lower in FRACTION_WORDS:
        yield from (Token("symbol", "/", spaced), Token("number", FRACTION_WORDS[lower], spaced))
    elif len(run) == 1:
        yield Token("unit" if follows_number and spaced and unit_of(run) else "name", run, spaced)
    elif (len(run) == 3 and _FORMULA.fullmatch(run)) or (
        (is_factor or lower not in _SHORT_WORDS)
        and not _ROMAN.fullmatch(run)
        and not _COMPASS.fullmatch(run)
        and (len(run) == 2 or _in_alphabetical_order(run))
    ):
        for position, letter in enumerate(run):
            yield Token("name", letter, spaced and position == 0)
    else:
        yield Token("word", run, spaced)


def _in_alphabetical_order(run: str) -> bool:
    """Whether letters are sorted, as in abc, xyz and ABCD.

    At most one anagram of a word is sorted, so no two words are read as the same product.
    """
    if len(run) > 4 or run.istitle():
        return False
    return all(a < b for a, b in pairwise(run)) and not set(run.lower()) & set("eiou")


def _chinese(run: str, spaced: bool) -> Iterator[Token]:
    """Split a run into units, powers of ten and 每 (per), or take it as one word if that fails."""
    parts = _CHINESE_PART.findall(run)
    if "".join(parts) != run:
        yield Token("word", run, spaced)
        return
    for part in parts:
        if part in _CHINESE_POWERS_OF_TEN:
            yield from (Token("symbol", "*", False), Token("number", _CHINESE_POWERS_OF_TEN[part], False))
        elif part == "每":
            yield Token("power", "per", spaced)
        elif part in POWERS:
            yield Token("power", part, spaced)
        else:
            yield Token("unit", unit_of(part) or part, spaced)


def _of_another_script(run: str, follows_number: bool, spaced: bool) -> Token:
    """Classify a run of another script: a unit, a word or, for a single letter, a name."""
    if run.lower() in POWERS:
        return Token("power", run.lower(), spaced)
    if follows_number and (unit := unit_of(run)):
        return Token("unit", unit, spaced)
    return Token("word" if len(run) > 1 else "name", run, spaced)


def _is_index(before: str, digits: str) -> bool:
    return len(before) == 1 and before.isascii() and digits.isdecimal() and len(digits) < 3


def _ends_in_unit(tokens: list[Token]) -> bool:
    """Whether the last token is a unit, or a letter in a unit's denominator, as in m/s2."""
    if not tokens:
        return False
    is_below = len(tokens) > 2 and tokens[-2].text == "/" and any(token.kind == "unit" for token in tokens)
    return tokens[-1].kind == "unit" or (is_below and unit_of(tokens[-1].text) is not None)


def _is_alone(tokens: list[Token]) -> bool:
    """Whether the last token, with its sign, is so far the whole answer or the whole side of an equation."""
    before = [token.text for token in tokens[-3:-1]]
    return before in ([], ["-"]) or before[-1] == "=" or before == ["=", "-"]


def _may_be_unit(run: str, tokens: list[Token], spaced: bool) -> bool:
    """Whether letters that spell a unit mean it: after a number or unit, also within J/(g*K) and g*cm^(-3)."""
    if not tokens:
        return False
    last = tokens[-1]
    if is_like_a_product(run) and not (spaced and last.kind == "number"):
        return any(token.kind == "unit" for token in tokens)
    is_short = len(run) == 1 or run.lower() in _SHORT_WORDS
    if spaced and [token.kind for token in tokens[-2:]] == ["number", "name"]:
        # 2x cm and 4π m; 4π h may be a product.
        return not is_short or (last.text == "π" and run in ("m", "in"))
    if spaced and len(tokens) == 1 and last.kind == "name" and last.text not in "aAπ":
        # x cm, but not a cup
        return not is_short and unit_of(run) is not None
    if last.kind in ("number", "unit", "power") or last.text in (")", "}", "/", "π"):
        return True
    return last.text in ("*", "(") and len(tokens) > 1 and any(token.kind == "unit" for token in tokens)


def tokenize(text: str) -> list[Token]:
    """Return the tokens of normalized text and three end tokens, which allow look-ahead; NotMath if it is too long."""
    tokens: list[Token] = []
    position = depth = 0
    spaced = False
    has_groups = "," in text or " " in text
    while position < len(text):
        if tokens and tokens[-1].kind == "number" and _is_alone(tokens) and (unit := _LONE_UNIT.match(text, position)):
            tokens.append(Token("unit", unit[0], spaced))
            position, spaced = unit.end(), False
            continue
        match = (depth == 0 and has_groups and _THOUSANDS.match(text, position)) or _TOKEN.match(text, position)
        assert match
        kind, lexeme = match.lastgroup or "number", match[0]
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        last = tokens[-1] if tokens else Token("end", "", False)
        if kind == "number" and not spaced and lexeme in ("2", "3") and _ends_in_unit(tokens):
            # cm2
            tokens.extend((Token("symbol", "^", False), Token("number", lexeme, False)))
        elif kind == "number" and last.kind == "name" and not spaced and _is_index(last.text, lexeme):
            # v0 is v_0.
            tokens.append(Token("sub", f"_{lexeme}", False))
        elif kind == "ordinal":
            tokens.extend((Token("number", lexeme[:-2], spaced), Token("unit", ORDINAL, False)))
        elif kind in ("number", "repeating"):
            digits = lexeme if lexeme.isdecimal() else re.sub(r"[,\s]", "", lexeme)
            tokens.append(Token("number", digits, spaced))
        elif kind == "letters":
            ends = not text[position : position + 1].strip(" ,;)/^")
            # at in 0.5at^2 and u + at, and NO in {NO}, are products rather than words.
            is_factor = (
                ((last.kind == "number" or last.text == "}") and not spaced)
                or (last.text == "{" and lexeme.isupper())
                or last.text == "+"
            )
            tokens.extend(_letters(lexeme, _may_be_unit(lexeme, tokens, spaced), spaced, ends, is_factor))
        elif kind == "foreign":
            tokens.append(_of_another_script(lexeme, _may_be_unit(lexeme, tokens, spaced), spaced))
        elif kind == "metric":
            tokens.append(Token("unit" if _may_be_unit(lexeme, tokens, spaced) else "name", lexeme, spaced))
        elif kind == "chinese":
            tokens.extend(_chinese(lexeme, spaced))
        elif kind == "decorated":
            decorated = re.sub(r"[\s{}\\]", "", lexeme)
            if _ANGLE.fullmatch(decorated) and decorated[1] > decorated[3]:
                decorated = f"∠{decorated[:0:-1]}"
            unit_vector = _UNIT_VECTOR.fullmatch(decorated)
            tokens.append(Token("name", unit_vector[1] if unit_vector else decorated, spaced))
        elif kind == "sub":
            tokens.append(Token("sub", "_" + re.sub(r"[_{}\\\s]", "", lexeme), spaced))
        elif kind == "degrees":
            tokens.append(Token("unit", lexeme, spaced))
        elif kind == "command" and lexeme[1:] in FUNCTIONS:
            tokens.append(Token("function", FUNCTIONS[lexeme[1:]], spaced))
        elif kind == "symbol" and (lexeme.isalpha() or lexeme == "∞"):
            tokens.append(Token("name", lexeme, spaced))
        else:
            tokens.append(Token(kind, lexeme, spaced))
            depth += (lexeme in CLOSING) - (lexeme in (")", "]", "}", r"\}"))
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise NotMath("too long")
    return [*tokens, *[Token("end", "", spaced)] * 3]
