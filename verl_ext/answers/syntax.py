r"""Reads answers as mathematics: a tokenizer and a recursive-descent parser for plain text and LaTeX.

`read` takes text in its one spelling (`verl_ext.answers.spelling`) and returns what it says in normal form. It
evaluates nothing but exact arithmetic, and refuses what it does not know, what is nested too deeply and what is too
large (`NotMath`): such an answer is compared as text.
"""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, NoReturn, Union

from verl_ext.answers.algebra import IMAGINARY, ONE, POSITIVE_NAMES, Algebra, Atom, Sum, TooLarge, Undefined, name, number
from verl_ext.answers.units import CHINESE_UNITS, COMPOUND, POWERS, POWERS_BEHIND, unit_of

MAX_TOKENS = 400
MAX_DEPTH = 30
MAX_DIGITS = 400
MAX_DECIMAL_EXPONENT = 300

CONSTANTS = frozenset({*POSITIVE_NAMES, IMAGINARY, "∞"})


class NotMath(ValueError):
    """Text that is not read as mathematics."""


class Form(NamedTuple):
    """What is not one expression: brackets around several, a set, a relation, a ratio, a union, a matrix.

    `text` tells all forms apart; the order of `parts` is that of the text, sorted where order has no meaning.
    """

    text: str
    kind: str
    parts: tuple[Union[Sum, "Form"], ...]  # noqa: UP007


Value = Union[Sum, Form]  # noqa: UP007


class Reading(NamedTuple):
    """What an answer says. `bare` and `unit` are set where it is a number with a unit: the number, and the unit."""

    value: Value
    bare: Sum | None = None
    unit: str | None = None


class _Token(NamedTuple):
    kind: str  # number, name, function, command, unit, power, word, sub, and, sign, end
    text: str
    spaced: bool  # whether white space stands before it


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<repeating>\d*\.\d*\\overline\s*\{\s*\d+\s*\})
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z\d.]))?)
    |(?P<decorated>(?:[∠△→⊙]|\\(?:overline|bar|hat|widehat|tilde|dot|ddot|overparen|overarc|wideparen)(?![A-Za-z]))
        \s*(?:\{[^{}]*\}|[A-Za-z]+\d?|\d))
    |(?P<command>\\[A-Za-z]+|\\[{}])
    |(?P<letters>[A-Za-z]+)
    |(?P<chinese>[\u4e00-\u9fff]+)
    |(?P<sub>_\s*(?:\{[^{}]*\}|[A-Za-z0-9]))
    |(?P<degrees>°[CFK]?)
    |(?P<sign><=|>=|!=|==|:=|\*\*|.)""",
    re.VERBOSE | re.DOTALL,
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d{1,3}(?: \d{3})+(?:\.\d+)?(?!\d)(?! ?\d*/\d{3})")
_FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "ln": "ln", "log": "log",
    "lg": "lg", "exp": "exp", "max": "max", "min": "min", "gcd": "gcd", "lcm": "lcm", "abs": "abs",
}  # fmt: skip
_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan"}
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_SYMMETRIC = frozenset({"max", "min", "gcd", "lcm"})
_NAMED = {"pi": "π", "infty": "∞", "inf": "∞", "infinity": "∞", "theta": "θ", "alpha": "α", "beta": "β"}
# Words of two letters, which would otherwise be products of variables.
_TWO_LETTER_WORDS = frozenset(
    "no on or is in it of to up us an at as am pm be by do go he if me my so we ok hi oh ya".split()
)
# A number that is followed by one of these is more than a number with a unit.
_NO_UNITS = frozenset("is are was not no if or more less than when where only but then because either for to".split())
_RELATIONS = {"=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "≤": "≤", "≥": "≥", "<=": "≤", ">=": "≥", "≠": "≠",
              "!=": "≠", "∈": "∈"}  # fmt: skip
_TURNED = {">": "<", "≥": "≤"}
_CURRENCIES = {"$": "$", "€": "€", "£": "£", "¥": "元"}
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), r"\{": (r"\}",)}
_MATRIX = re.compile(r"\\begin\s*\{([pbB]?)matrix\}(.*)\\end\s*\{\1matrix\}", re.DOTALL)
_LABEL_IN_WORDS = re.compile(r"[A-Za-z ]+(?:\([A-Za-z ]*\))?\s*=([^=]+)")


def _letters(run: str, follows_number: bool, spaced: bool) -> Iterator[_Token]:
    """What a run of letters is: a function, a unit, an English word, or variables side by side."""
    lower = run.lower()
    if run in _FUNCTIONS or lower in _FUNCTIONS and len(run) > 2:
        # After a number it is the unit.
        if not (run == "min" and follows_number):
            yield _Token("function", _FUNCTIONS[lower], spaced)
            return
    if run == "sqrt":
        yield _Token("command", r"\sqrt", spaced)
    elif run in _NAMED:
        yield _Token("name", _NAMED[run], spaced)
    elif lower in ("and", "or"):
        yield _Token("and", lower, spaced)
    elif lower in POWERS or lower in POWERS_BEHIND or lower == "per":
        yield _Token("power", lower, spaced)
    elif lower in COMPOUND:
        over, under = COMPOUND[lower]
        yield from (_Token("unit", over, spaced), _Token("sign", "/", False), _Token("unit", under, False))
    elif len(run) > 1 and follows_number and unit_of(run):
        yield _Token("unit", unit_of(run) or run, spaced)
    elif len(run) == 1:
        yield _Token("unit" if follows_number and spaced and unit_of(run) else "name", run, spaced)
    elif (len(run) == 2 and lower not in _TWO_LETTER_WORDS) or _in_alphabetical_order(run):
        for position, letter in enumerate(run):
            yield _Token("name", letter, spaced and position == 0)
    else:
        yield _Token("word", run, spaced)


def _in_alphabetical_order(run: str) -> bool:
    """As abc, xyz and ABCD: of a word's anagrams at most one, so that no two words are the same product."""
    return len(run) <= 4 and all(a < b for a, b in zip(run, run[1:], strict=False)) and not set(run.lower()) & set("eiou")


def _chinese(run: str, spaced: bool) -> Iterator[_Token]:
    for word, power in (("万", 4), ("亿", 8)):
        if run.startswith(word):
            yield from (_Token("sign", "*", False), _Token("number", str(10**power), False))
            run = run[len(word) :]
    for word in ("平方", "立方"):
        if run.startswith(word):
            yield _Token("power", word, spaced)
            run = run[len(word) :]
    if run == "时":
        yield _Token("unit", "h", spaced)
    elif run:
        unit = next((unit for unit in CHINESE_UNITS if unit == run), None)
        yield _Token("unit", unit_of(unit) or unit, spaced) if unit else _Token("word", run, spaced)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = depth = 0
    spaced = False
    while position < len(text):
        match = (depth == 0 and _THOUSANDS.match(text, position)) or _TOKEN.match(text, position)
        assert match
        kind, found = match.lastgroup or "number", match[0]
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        last = tokens[-1] if tokens else _Token("end", "", False)
        follows_number = last.kind in ("number", "unit", "power") or last.text in (")", "}", "/", "π")
        if kind in ("number", "repeating"):
            tokens.append(_Token("number", re.sub(r"[,\s]", "", found), spaced))
        elif kind == "letters":
            tokens.extend(_letters(found, follows_number, spaced))
        elif kind == "chinese":
            tokens.extend(_chinese(found, spaced))
        elif kind == "decorated":
            tokens.append(_Token("name", re.sub(r"[\s{}\\]", "", found), spaced))
        elif kind == "sub":
            tokens.append(_Token("sub", f"_{re.sub(r'[_{}]', '', found).strip()}", spaced))
        elif kind == "degrees":
            tokens.append(_Token("unit", found, spaced))
        elif kind == "command" and found[1:] in _FUNCTIONS:
            tokens.append(_Token("function", _FUNCTIONS[found[1:]], spaced))
        elif kind == "sign" and (found.isalpha() or found == "∞"):
            tokens.append(_Token("name", found, spaced))
        else:
            tokens.append(_Token(kind, found, spaced))
            depth += (found in _CLOSING) - (found in (")", "]", "}", r"\}"))
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise NotMath("too long")
    return [*tokens, *[_Token("end", "", spaced)] * 3]


def _collection(kind: str, opening: str, parts: Iterable[Value], closing: str, *, ordered: bool) -> Form:
    members = tuple(parts)
    if not ordered:
        members = tuple(sorted({part.text: part for part in members}.values(), key=lambda part: part.text))
    return Form(f"{opening}{', '.join(part.text for part in members)}{closing}", kind, members)


def _set_of(parts: Iterable[Value]) -> Form:
    return _collection("set", "{", parts, "}", ordered=False)


def _all_of(relations: Iterable[Value]) -> Form:
    """Relations that hold together, in any order and also where some were joined before."""
    parts = (part for item in relations for part in (item.parts if _kind(item) == "all" else (item,)))  # type: ignore[union-attr]
    return _collection("all", "", parts, "", ordered=False)


def _kind(value: Value) -> str:
    return value.kind if isinstance(value, Form) else "sum"


def _is_relation(value: Value) -> bool:
    return _kind(value) == "all" or _kind(value).startswith("relation")


def variables(value: Value) -> set[str]:
    """The names in a value that are no constants; units are among them."""
    if isinstance(value, Form):
        return set().union(*map(variables, value.parts))
    found: set[str] = set()
    for atom in value.atoms:
        found |= _variables_of(atom)
    return found


def _variables_of(atom: Atom) -> set[str]:
    if atom.kind == "name":
        return set() if atom.text in CONSTANTS else {atom.text}
    if atom.kind == "power":
        base, monomial = atom.parts
        assert isinstance(base, Atom) and isinstance(monomial, tuple)
        inner = [base, *(part for part, _ in monomial)]  # type: ignore[misc]
        return set().union(*map(_variables_of, inner))
    return set().union(*(variables(part) for part in atom.parts if isinstance(part, Sum)))


class _Parser:
    """One reading of the tokens; `sign` is what a ± stands for in it."""

    def __init__(self, tokens: list[_Token], sign: int) -> None:
        self._tokens = list(tokens)
        self._position = 0
        self._depth = 0
        self._bars = 0
        self._sign = sign
        self.has_plus_minus = False
        self._has_or = False
        self.algebra = Algebra()
        # Names that were written as units.
        self.units: set[str] = set()

    # Tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        token = self._next
        self._position += 1
        return token

    def _takes(self, *texts: str) -> bool:
        if self._next.text in texts and self._next.kind in ("sign", "command", "and", "power"):
            self._position += 1
            return True
        return False

    def _fail(self) -> NoReturn:
        raise NotMath(f"{self._next.text!r} at token {self._position}")

    # Lists and relations

    def answer(self) -> Value:
        items = self._items(top=True)
        if self._next.kind != "end":
            self._fail()
        if len(items) == 1:
            return _value_of(items[0])
        if not self._has_or and all(_is_relation(item) for item in items):
            return _all_of(items)
        labels = [item.parts[0].text for item in items if isinstance(item, Form) and item.kind == "assignment"]
        if len(labels) == len(items) and len(set(labels)) > 1:
            return _set_of(items)
        return _set_of(part for item in map(_value_of, items) for part in (item.parts if _kind(item) == "set" else (item,)))

    def _items(self, *, top: bool = False) -> list[Value]:
        items = [self._relation()]
        while self._takes(",", ";") or (top and self._next.kind == "and"):
            if top and self._next.kind == "and":
                self._has_or |= self._take().text == "or"
            items.append(self._relation())
        return items

    def _relation(self) -> Value:
        sides, relations = [self._ratio()], []
        while self._next.kind == "sign" and self._next.text in _RELATIONS:
            relations.append(_RELATIONS[self._take().text])
            sides.append(self._ratio())
        if not relations:
            return sides[0]
        if set(relations) == {"="}:
            return self._equation(sides)
        if relations == ["∈"]:
            return sides[1]
        parts = [self._compare(a, relation, b) for a, relation, b in zip(sides, relations, sides[1:], strict=False)]
        return parts[0] if len(parts) == 1 else _all_of(parts)

    def _equation(self, sides: list[Value]) -> Value:
        *left, right = sides
        if self._is_constant(right) and all(self._is_label(side) or self._is_constant(side) for side in left):
            label = next((side for side in left if not self._is_constant(side)), None)
            return right if label is None else Form(f"{label.text}={right.text}", "assignment", (label, right))
        if len(left) == 1 and self._is_constant(left[0]) and self._is_label(right):
            return Form(f"{right.text}={left[0].text}", "assignment", (right, left[0]))
        if len(left) > 1 and self._is_constant(right):
            return right
        if len(left) > 1:
            self._fail()
        return self._compare(left[0], "=", right)

    def _is_constant(self, value: Value) -> bool:
        return variables(value) <= self.units

    @staticmethod
    def _is_label(value: Value) -> bool:
        """Whether it names something, as x, AB, f(x) or an angle do."""
        if isinstance(value, Form) or len(value.terms) != 1:
            return False
        monomial, coefficient = value.terms[0]
        return coefficient == 1 and bool(monomial) and all(
            exponent == 1 and atom.kind in ("name", "call") for atom, exponent in monomial
        )

    def _compare(self, a: Value, relation: str, b: Value) -> Form:
        if isinstance(a, Form) or isinstance(b, Form):
            if relation in ("=", "≠"):
                first, second = sorted((a, b), key=lambda side: side.text)
                return Form(f"{first.text}{relation}{second.text}", f"relation {relation}", (first, second))
            self._fail()
        if relation in _TURNED:
            a, relation, b = b, _TURNED[relation], a
        difference = self.algebra.primitive(self.algebra.subtract(a, b), signed=relation in ("=", "≠"))
        return Form(f"{difference.text}{relation}0", f"relation {relation}", (difference,))

    def _ratio(self) -> Value:
        parts = [self._union()]
        while self._takes(":"):
            parts.append(self._union())
        if len(parts) > 1 and self.units:
            # As 1:00 PM.
            self._fail()
        return parts[0] if len(parts) == 1 else Form(":".join(part.text for part in parts), "ratio", tuple(parts))

    def _union(self) -> Value:
        parts, signs = [self._expression()], set()
        while self._next.text in ("∪", "∩"):
            signs.add(self._take().text)
            parts.append(self._expression())
        if not signs:
            return parts[0]
        if len(signs) > 1 or any(isinstance(part, Sum) and not part.atoms for part in parts):
            self._fail()
        (sign,) = signs
        members = sorted({part.text: part for part in parts}.values(), key=lambda part: part.text)
        return Form(sign.join(part.text for part in members), f"union {sign}", tuple(members))

    # Expressions

    def _sum_of(self, value: Value) -> Sum:
        if isinstance(value, Form):
            self._fail()
        return value

    def _expression(self) -> Value:
        first = self._signed_term()
        if self._next.kind != "sign" or self._next.text not in "+-±∓":
            return first
        summands = [self._sum_of(first)]
        while self._next.kind == "sign" and self._next.text in ("+", "-", "±", "∓"):
            summands.append(self._sum_of(self._signed_term()))
        return self.algebra.add(*summands)

    def _signed_term(self) -> Value:
        sign = 1
        while self._next.kind == "sign" and self._next.text in ("+", "-", "±", "∓"):
            sign *= self._sign_of(self._take().text)
        value = self._term()
        return value if sign == 1 else self.algebra.multiply(number(-1), self._sum_of(value))

    def _sign_of(self, sign: str) -> int:
        if sign in "±∓":
            self.has_plus_minus = True
            return self._sign if sign == "±" else -self._sign
        return -1 if sign == "-" else 1

    def _term(self) -> Value:
        value = self._factor()
        while True:
            if self._takes("*"):
                value = self.algebra.multiply(self._sum_of(value), self._operand())
            elif self._takes("/", "per"):
                value = self.algebra.divide(self._sum_of(value), self._operand())
            elif self._next.kind in ("unit", "power"):
                value = self.algebra.multiply(self._sum_of(value), self._unit())
            elif self._next.kind == "word" and not variables(value):
                value = self.algebra.multiply(self._sum_of(value), self._unit())
            elif self._starts_factor():
                value = self.algebra.multiply(self._sum_of(value), self._sum_of(self._factor()))
            else:
                return value

    def _operand(self) -> Sum:
        """What stands behind a sign; behind a unit another unit, as in km/h and N*m."""
        if self.units and (self._next.kind == "power" or unit_of(self._next.text)):
            return self._unit()
        return self._sum_of(self._factor(signed=True))

    def _starts_factor(self) -> bool:
        token = self._next
        if token.kind in ("name", "function"):
            return True
        if token.kind == "command":
            return token.text not in (r"\}", r"\{", r"\rfloor", r"\rceil", r"\right")
        return token.text in ("(", "{", "√") or (token.text == "|" and not self._bars)

    def _unit(self) -> Sum:
        exponent = 1
        while self._next.text in POWERS:
            exponent = POWERS[self._take().text]
        symbol = self._take().text if (unit_of(self._next.text) or self._next.kind == "unit") else self._words()
        symbol = unit_of(symbol) or symbol
        self.units.add(symbol)
        unit = name(symbol)
        if self._next.text in POWERS_BEHIND:
            exponent = POWERS_BEHIND[self._take().text]
        unit = self.algebra.power(unit, number(exponent))
        return self._raised(unit)

    def _words(self) -> str:
        """The things that a number counts, as apples; singular and plural are the same."""
        words = []
        while self._next.kind == "word" and len(words) < 4:
            words.append(self._take().text.lower())
        if not 0 < len(words) < 4 or set(words) & _NO_UNITS or self._next.kind not in ("end", "and"):
            self._fail()
        return f'"{" ".join(words).removesuffix("s")}"'

    def _factor(self, *, signed: bool = False) -> Value:
        if signed and self._next.kind == "sign" and self._next.text in ("+", "-"):
            sign = self._sign_of(self._take().text)
            return self.algebra.multiply(number(sign), self._sum_of(self._factor(signed=True)))
        if self._next.kind == "unit":
            if not self.units:
                self._fail()
            return self._unit()
        value = self._postfix(self._primary())
        return self._raised(value) if self._next.text in ("^", "**") else value

    def _raised(self, value: Value) -> Sum:
        if not self._takes("^", "**"):
            return self._sum_of(value)
        base = self._sum_of(value)
        raised = self.algebra.power(base, self._exponent())
        return self._sum_of(self._postfix(raised))

    def _exponent(self) -> Sum:
        self._enter()
        sign = 1
        while self._next.kind == "sign" and self._next.text in ("+", "-"):
            sign *= self._sign_of(self._take().text)
        exponent = self._raised(self._primary())
        self._depth -= 1
        return exponent if sign == 1 else self.algebra.multiply(number(sign), exponent)

    def _postfix(self, value: Value) -> Value:
        while self._next.kind == "sign" and self._next.text in ("!", "%", "‰", "'"):
            sign = self._take().text
            if sign == "!":
                value = self.algebra.call("factorial", self._sum_of(value))
            elif sign == "'" and variables(value):
                value = self.algebra.multiply(ONE, name(f"{value.text}'"))
            else:
                self.units.add(sign)
                value = self.algebra.multiply(self._sum_of(value), name(sign))
        return value

    # Primaries

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotMath("nested too deeply")

    def _primary(self) -> Value:
        self._enter()
        value = self._unnested_primary()
        self._depth -= 1
        return value

    def _unnested_primary(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return self._mixed(_number(token.text))
        if token.kind == "name":
            text = token.text
            if self._next.kind == "sub":
                text += self._take().text
            return name(text)
        if token.kind == "function":
            return self._function(token.text)
        if token.text in _CLOSING:
            return self._brackets(token.text)
        if token.text == "|":
            self._bars += 1
            inner = self._sum_of(self._expression())
            self._bars -= 1
            if not self._takes("|"):
                self._fail()
            return self.algebra.call("abs", inner)
        if token.text == "√":
            return self._root()
        if token.text == "∅":
            return _set_of(())
        if token.kind == "sign" and token.text in _CURRENCIES and self._next.kind == "number":
            self.units.add(_CURRENCIES[token.text])
            return self.algebra.multiply(_number(self._take().text), name(_CURRENCIES[token.text]))
        if token.kind == "command":
            return self._command(token.text)
        self._position -= 1
        self._fail()

    def _mixed(self, whole: Sum) -> Sum:
        r"""Three and a half, as `3 1/2` or `3\frac{1}{2}`; a number straight after a number is nothing else."""
        if self._next.text == r"\frac" and _is_natural(whole):
            position = self._position
            self._take()
            fraction = self._plain_fraction()
            if fraction is not None:
                return self.algebra.add(whole, number(fraction))
            self._position = position
        if self._next.kind == "number":
            above, slash, below = self._tokens[self._position : self._position + 3]
            if not (_is_natural(whole) and slash.text == "/" and above.text.isdigit() and below.text.isdigit()):
                self._fail()
            self._position += 3
            if not 0 <= int(above.text) < int(below.text):
                self._fail()
            return self.algebra.add(whole, number(Fraction(int(above.text), int(below.text))))
        return whole

    def _plain_fraction(self) -> Fraction | None:
        """The proper fraction of two integers that follows, None where there is another."""
        values = []
        for _ in range(2):
            braced = self._takes("{")
            if self._next.kind != "number" or not self._next.text.isdigit():
                return None
            text = self._next.text
            if braced:
                self._take()
                if not self._takes("}"):
                    return None
            else:
                text = self._first_digit()
            values.append(int(text))
        above, below = values
        return Fraction(above, below) if above < below else None

    def _first_digit(self) -> str:
        """Take one digit, as LaTeX does where an argument has no braces."""
        token = self._take()
        if len(token.text) > 1 and token.text.isdigit():
            self._position -= 1
            self._tokens[self._position] = token._replace(text=token.text[1:], spaced=False)
        return token.text[0] if token.text.isdigit() else token.text

    def _argument(self) -> Sum:
        """Of a LaTeX command: braces, or one token."""
        if self._next.kind == "number":
            return _number(self._first_digit())
        return self._sum_of(self._primary())

    def _brackets(self, opening: str) -> Value:
        if opening == r"\{" and self._takes(r"\}"):
            return _set_of(())
        bars, self._bars = self._bars, 0
        items = self._items()
        self._bars = bars
        closing = self._take().text
        if closing not in _CLOSING[opening]:
            self._position -= 1
            self._fail()
        if opening == r"\{" or (opening == "{" and len(items) > 1):
            return _set_of(map(_value_of, items))
        if len(items) == 1 and opening + closing in ("()", "[]", "{}"):
            return items[0]
        if len(items) == 1:
            self._fail()
        return _collection(f"brackets {opening}{closing}", opening, map(_value_of, items), closing, ordered=True)

    def _function(self, function: str) -> Sum:
        exponent, base = None, None
        for _ in range(2):
            if self._next.kind == "sub":
                base = read_number(self._take().text[1:])
            elif self._takes("^"):
                exponent = self._exponent()
        if exponent is not None and exponent.rational == -1 and function in _INVERSES:
            function, exponent = _INVERSES[function], None
        value = self._apply(function, base)
        return value if exponent is None else self.algebra.power(value, exponent)

    def _apply(self, function: str, base: Sum | None) -> Sum:
        self._enter()
        if self._next.text in ("(", "{", "["):
            opening = self._take().text
            items = [self._sum_of(item) for item in self._items()]
            if self._take().text not in _CLOSING[opening]:
                self._position -= 1
                self._fail()
        else:
            items = [self._bare_argument()]
        self._depth -= 1
        if function in _TRIGONOMETRIC:
            degree = self.algebra.divide(name("π"), number(180))
            items = [self.algebra.substitute(item, Atom("°", "name"), degree) for item in items]
        if function in _SYMMETRIC:
            return self.algebra.call(function, *sorted(items, key=lambda item: item.text))
        if len(items) != 1:
            self._fail()
        (argument,) = items
        if function == "exp":
            return self.algebra.power(name("e"), argument)
        if function == "lg":
            function, base = "log", number(10)
        if function == "log" and base is not None:
            return self.algebra.divide(self.algebra.call("ln", argument), self.algebra.call("ln", base))
        return self.algebra.call(function, argument)

    def _bare_argument(self) -> Sum:
        """What follows a function without brackets, up to the next sign or function."""
        sign = 1
        while self._next.kind == "sign" and self._next.text in ("+", "-"):
            sign *= self._sign_of(self._take().text)
        argument = self._sum_of(self._factor())
        while (self._starts_factor() and self._next.kind != "function" and self._next.text != "(") or (
            self._next.kind == "unit"
        ):
            factor = self._unit() if self._next.kind == "unit" else self._sum_of(self._factor())
            argument = self.algebra.multiply(argument, factor)
        return self.algebra.multiply(number(sign), argument)

    def _root(self) -> Sum:
        order = 2
        if self._takes("["):
            token = self._take()
            if not (token.text.isdigit() and len(token.text) < 3 and int(token.text) and self._takes("]")):
                self._fail()
            order = int(token.text)
        radicand = self._sum_of(self._primary())
        return self.algebra.power(radicand, number(Fraction(1, order)))

    def _command(self, command: str) -> Value:
        if command == r"\frac":
            above = self._argument()
            return self.algebra.divide(above, self._argument())
        if command == r"\sqrt":
            return self._root()
        if command == r"\binom":
            above = self._argument()
            return self.algebra.call("binomial", above, self._argument())
        for opening, closing, function in ((r"\lfloor", r"\rfloor", "floor"), (r"\lceil", r"\rceil", "ceil")):
            if command == opening:
                inner = self._sum_of(self._expression())
                if not self._takes(closing):
                    self._fail()
                return self.algebra.call(function, inner)
        self._position -= 1
        self._fail()


def _is_natural(value: Sum) -> bool:
    rational = value.rational
    return rational is not None and rational.denominator == 1 and rational >= 0


def _value_of(item: Value) -> Value:
    """Without the name that a value was given."""
    return item.parts[1] if isinstance(item, Form) and item.kind == "assignment" else item


def _number(text: str) -> Sum:
    if "overline" in text:
        before, repeated = re.findall(r"[\d.]+", text)
        whole, _, decimals = before.partition(".")
        scale = 10 ** len(decimals)
        tail = Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
        return number(Fraction(int(whole + decimals or "0"), scale) + tail)
    digits, _, exponent = text.lower().partition("e")
    if len(digits) > MAX_DIGITS or (exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_DECIMAL_EXPONENT)):
        raise NotMath("too many digits")
    return number(Fraction(text))


def read_number(text: str) -> Sum:
    """A natural number; NotMath for anything else."""
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise NotMath(text)
    return number(int(text))


def _matrix(text: str) -> Form | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [[read(cell.strip()).value for cell in row.split("&")] for row in match[2].split(r"\\") if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise NotMath("rows of different lengths")
    return _collection(
        "matrix", "[", (_collection("row", "[", row, "]", ordered=True) for row in rows), "]", ordered=True
    )


def read(text: str) -> Reading:
    """Read text in its one spelling; NotMath where it is none.

    A relation that names a constant is that constant (x = 5 is 5), values joined by commas, "and" or "or" and those of
    a ± are the set of them.
    """
    try:
        return _read(text)
    except (TooLarge, Undefined, RecursionError, OverflowError) as error:
        raise NotMath(type(error).__name__) from error


def _read(text: str) -> Reading:
    if (matrix := _matrix(text)) is not None:
        return Reading(matrix)
    tokens = _tokens(text)
    parser = _Parser(tokens, 1)
    try:
        value = parser.answer()
    except NotMath:
        labelled = _LABEL_IN_WORDS.fullmatch(text)
        if labelled is None:
            raise
        reading = _read(labelled[1].strip())
        if reading.unit is None and variables(reading.value):
            raise
        return reading
    if parser.has_plus_minus:
        other = _Parser(tokens, -1).answer()
        return Reading(_set_of((value, other)) if value.text != other.text else value)
    return _with_unit(value, parser.units)


def _with_unit(value: Value, units: set[str]) -> Reading:
    if not units or isinstance(value, Form) or len(value.terms) != 1:
        return Reading(value)
    monomial, coefficient = value.terms[0]
    unit = tuple((atom, exponent) for atom, exponent in monomial if atom.text in units)
    bare = Sum(((tuple(factor for factor in monomial if factor not in unit), coefficient),))
    if not unit or variables(bare):
        return Reading(value)
    return Reading(value, bare, Sum(((unit, Fraction(1)),)).text)
