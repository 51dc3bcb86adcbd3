r"""Evaluates LaTeX to the number that MATH-Vision's authors get, without `eval` and without sympy.

Their `evaluation/utils.py` calls `round(eval(str(latex2sympy(text))), 2)` in a module that has `from math import *`.
This module reproduces latex2sympy2 1.9.1 under that call, oddities included:

- its grammar does not expect the end of the input, so it ignores anything that cannot continue an expression: `5)`,
`5.` and `5 rows` are 5;
- a colon divides, `12\frac{1}{2}` is a product, and angles are radians;
- letters, units, degree signs and a bare `%` have no value, but `x=5` is 5 and `3<4` is 1;
- names that Python's `math` lacks fail (`\ln`, `\cot`, absolute values, a bare `e`), and so do complex values.

Matrices, sums, integrals and `\gcd` have no value here. Texts are in lower case, as the authors compare them.
"""

import math
import re
from collections.abc import Callable

LONGEST = 20_000
DEEPEST = 60
# Larger powers and factorials have no value; `eval` would not return in time.
BITS = 20_000
LARGEST_FACTORIAL = 2_000

Number = int | float

_SPACES = re.compile(r"\\displaystyle|\\quad|\\qquad|~|\\,|\$")
_FALLING = re.compile(r"\(([a-z0-9+\-*/\\ ]+)\)_\{([a-z0-9+\-*/\\ ]+)\}")
_NAMED = re.compile(
    r"[ \t\r\n]*(?:[a-cf-z]|\\theta|\\alpha|\\beta|\\text *\{ *[a-z]\w* *\})(?:_(?:\w|\{\w+\}))?[ \t]*=(?!=)"
)
_NUMBER = r"(?P<number>[0-9]*(?:,[0-9]{3})*\.[0-9]+|[0-9]+(?:,[0-9]{3})*)(?P<percent>\\%)?"
_FUNCTIONS: dict[str, Callable[[Number], Number]] = {
    **{rf"\{name}": getattr(math, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "floor")},
    **{rf"\arc{name}": getattr(math, f"a{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{rf"\ar{name}": getattr(math, f"a{name}") for name in ("sinh", "cosh", "tanh")},
}
_INVERSE = {rf"\{name}": getattr(math, f"a{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}
_CALLED = {*_FUNCTIONS, r"\log", r"\sqrt", "e"}
_CONSTANTS = {r"\pi": math.pi, r"\tau": math.tau}
_MULTIPLY = {"*", r"\times", r"\cdot"}
_DIVIDE = {"/", r"\over", r"\div", ":"}
_COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    **dict.fromkeys(("<", r"\lt"), lambda a, b: a < b),
    **dict.fromkeys((">", r"\gt"), lambda a, b: a > b),
    **dict.fromkeys((r"\le", r"\leq", r"\leqslant"), lambda a, b: a <= b),
    **dict.fromkeys((r"\ge", r"\geq", r"\geqslant"), lambda a, b: a >= b),
}
_GROUPS = {
    "(": ")", "{": "}", "[": "]", r"\{": r"\}", r"\lgroup": r"\rgroup", r"\lbrace": r"\rbrace", r"\lbrack": r"\rbrack"
}  # fmt: skip
_FLOORS = {r"\lfloor": r"\rfloor", r"\llcorner": r"\lrcorner"}
_PAIRS = {r"\left": r"\right", r"\mleft": r"\mright"}
_BINOMIALS = {r"\binom", r"\tbinom", r"\dbinom"}
# Names in the grammar that cannot continue an expression, which therefore ends before them.
_NAMES = (
    "arsinh", "arcsinh", "arcosh", "arccosh", "artanh", "arctanh", "gcd", "lcm", "floor", "ceil", "eye", "zeros",
    "ones", "cols", "rows", "diag", "norm", "rank", "trace", "tr", "rref", "hstack", "vstack", "orth", "ortho",
    "orthogonal", "orthogonalize", "nullspace", "eig", "eigen", "diagonalize", "eigenvals", "eigenvalues",
    "eigenvects", "eigenvectors", "svd", "matrix", "pmatrix", "bmatrix", "vmatrix",
)  # fmt: skip
_ENDS = {
    "", ".", "_", "^", "&", "\\\\", *_GROUPS.values(), *_FLOORS.values(), *_PAIRS.values(), *_NAMES, r"\choose",
    r"\to", r"\rightarrow", r"\longrightarrow", r"\rceil", r"\rvert", r"\urcorner",
    *(rf"\end{{{name}}}" for name in ("matrix", "pmatrix", "bmatrix")),
}  # fmt: skip
# Longer tokens without a value that start like a token above.
_OTHERS = (r"\overline", r"\overrightarrow", "!=", "!==", "==", r"\exponentiale", r"\ln", r"\lcm", r"\mod")
_LITERALS = sorted(
    {
        *_CALLED, *_CONSTANTS, *_MULTIPLY, *_DIVIDE, *_COMPARE, *_GROUPS, *_FLOORS, *_PAIRS, *_BINOMIALS, *_OTHERS,
        *(_ENDS - {""}), "+", "-", "!", "'", r"\frac",
    },
    key=len,
    reverse=True,
)  # fmt: skip
_FACTORS = {"number", r"\frac", *_CALLED, *_CONSTANTS, *_GROUPS, *_FLOORS, *_PAIRS, *_BINOMIALS}
_TOKEN = re.compile(rf"[ \t\r\n]*(?:{_NUMBER}|(?P<literal>{'|'.join(map(re.escape, _LITERALS))})|(?P<end>\Z))")


class _NoValueError(ValueError):
    """The text has no value, because the authors' code raises."""


def latex_value(text: str) -> Number | None:
    r"""Evaluate a text, rounded to two decimals; None if the authors' code gives no number.

    Args:
        text: LaTeX in lower case. More than `LONGEST` characters or `DEEPEST` nested groups have no value.

    >>> latex_value(r"\frac{1}{2}"), latex_value("3:16"), latex_value("12 cm")
    (0.5, 0.19, None)
    """
    if len(text) > LONGEST:
        return None
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    text = _SPACES.sub(" ", _FALLING.sub(r"\\frac{(\1)!}{((\1)-(\2))!}", text))
    while name := _NAMED.match(text):
        text = text[name.end() :]
    try:
        return round(_Reader(text).relation(), 2)
    except (_NoValueError, ArithmeticError, ValueError):
        return None


class _Reader:
    """Recursive-descent parser that ignores whatever follows the expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._begin = 0
        self._advance()

    def relation(self) -> Number:
        """The value of the whole text."""
        value = self._sum()
        while compare := _COMPARE.get(self._token):
            self._advance()
            value = int(compare(value, self._sum()))
        if self._token not in _ENDS:
            raise _NoValueError
        return value

    def _advance(self) -> None:
        found = _TOKEN.match(self._text, self._begin)
        self._number: Number | None = None
        if found is None:
            # A letter, a unit, a comma or a character outside the grammar.
            self._token = "?"
            return
        self._begin = found.end()
        self._token = found["literal"] or ""
        if digits := found["number"]:
            self._token = "number"
            self._number = _number(digits.replace(",", ""))
            if found["percent"]:
                self._number /= 100

    def _take(self, *tokens: str) -> bool:
        if self._token not in tokens:
            return False
        self._advance()
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _NoValueError

    def _sum(self) -> Number:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _NoValueError
        value = self._product(calls=True)
        while self._token in ("+", "-"):
            plus = self._token == "+"
            self._advance()
            term = self._product(calls=True)
            value = value + term if plus else value - term
        self._depth -= 1
        return value

    def _product(self, calls: bool) -> Number:
        """Factors joined by operators. Without `calls`, a function cannot directly follow another factor."""
        value = self._signed(calls)
        while self._token in _MULTIPLY or self._token in _DIVIDE:
            multiply = self._token in _MULTIPLY
            self._advance()
            factor = self._signed(calls)
            value = _times(value, factor) if multiply else value / factor
        return value

    def _signed(self, calls: bool) -> Number:
        sign = 1
        while self._token in ("+", "-"):
            sign = -sign if self._token == "-" else sign
            self._advance()
        value = self._postfixed()
        while self._token in _FACTORS and (calls or self._token not in _CALLED):
            value = _times(value, self._postfixed())
        return sign * value

    def _postfixed(self) -> Number:
        value = self._operand()
        while self._take("^"):
            value = _power(value, self._script())
        while self._token in ("!", "'"):
            if self._token == "!":
                value = _factorial(value)
            self._advance()
        return value

    def _script(self) -> Number:
        """The operand of `^` or `_`: braces, or a single number or constant."""
        if self._token == "{":
            return self._group("}")
        return self._atom()

    def _atom(self) -> Number:
        value = self._number if self._token == "number" else _CONSTANTS.get(self._token)
        if value is None:
            raise _NoValueError
        self._advance()
        return value

    def _group(self, closing: str) -> Number:
        self._advance()
        value = self._sum()
        self._expect(closing)
        return value

    def _braces(self) -> Number:
        if self._token != "{":
            raise _NoValueError
        return self._group("}")

    def _operand(self) -> Number:
        token = self._token
        if closing := _GROUPS.get(token):
            self._advance()
            value = self._sum()
            if token == "{" and self._take(r"\choose"):
                value = _choose(value, self._sum())
            self._expect(closing)
            return value
        if closing := _FLOORS.get(token):
            return math.floor(self._group(closing))
        if closing := _PAIRS.get(token):
            self._advance()
            if self._token not in _GROUPS:
                raise _NoValueError
            expected = _GROUPS[self._token]
            self._advance()
            value = self._sum()
            self._expect(closing)
            self._expect(expected)
            return value
        if token == r"\frac":
            self._advance()
            return self._braces() / self._braces()
        if token in _BINOMIALS:
            self._advance()
            upper = self._braces()
            return _choose(upper, self._braces())
        if token in _CALLED:
            return self._call()
        return self._atom()

    def _call(self) -> Number:
        token = self._token
        self._advance()
        if token == "e":
            return _exponential(self._script()) if self._take("^") else _exponential(1)
        if token == r"\sqrt":
            root = self._group("]") if self._token == "[" else 2
            return _power(self._braces(), 1 / root)
        base: Number = 10
        power: Number | None = None
        for _ in range(2):
            if token == r"\log" and self._take("_"):
                base = self._script()
            elif power is None and self._take("^"):
                power = self._script()
        argument = self._argument()
        if power == -1 and token in _INVERSE:
            return _real(_INVERSE[token](argument))
        if token == r"\log":
            value: Number = math.log(argument, base)
        else:
            value = _exponential(argument) if token == r"\exp" else _FUNCTIONS[token](argument)
        return _power(value, power) if power else _real(value)

    def _argument(self) -> Number:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _NoValueError
        if self._token in _PAIRS or self._token == "(":
            pair = _PAIRS.get(self._token)
            if pair:
                self._advance()
            self._expect("(")
            value = self._sum()
            if pair:
                self._take(pair)
            self._expect(")")
        else:
            value = self._product(calls=False)
        self._depth -= 1
        return value


def _number(digits: str) -> Number:
    whole, _, decimals = digits.partition(".")
    return int(whole or "0") if not decimals.strip("0") else float(digits)


def _real(value: Number | complex) -> Number:
    if isinstance(value, complex):
        raise _NoValueError
    return value


def _times(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > BITS:
        raise _NoValueError
    return a * b


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > BITS:
        raise _NoValueError
    return math.sqrt(base) if exponent == 0.5 else _real(base**exponent)


def _factorial(value: Number) -> Number:
    if not isinstance(value, int) or value > LARGEST_FACTORIAL:
        raise _NoValueError
    return math.factorial(value)


def _choose(n: Number, k: Number) -> Number:
    if not isinstance(n, int) or not isinstance(k, int) or not 0 <= n <= LARGEST_FACTORIAL or k < 0:
        raise _NoValueError
    return math.comb(n, k)


def _exponential(exponent: Number) -> Number:
    # sympy prints e itself as E, which is undefined in Python.
    if exponent == 1:
        raise _NoValueError
    return 1 if exponent == 0 else math.exp(exponent)
