"""Values of expressions at points chosen once and for all: what differs there is different.

Floating point in bounded time; the opposite, that expressions are equal, is never concluded from it.
"""

import cmath
import math
from collections.abc import Callable, Mapping
from zlib import crc32

from verl_ext.answers.algebra import Atom, Monomial, Sum

# Of the magnitude of the terms that an expression is the sum of.
TOLERANCE = 1e-9
# What all names are scaled by, which stand for real numbers: positive ones, negative ones, and small ones.
POINTS = (complex(1), complex(-1), complex(0.37))

_CONSTANTS = {"π": complex(math.pi), "e": complex(math.e), "i": 1j}
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda x: 1 / cmath.tan(x),
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "asin": cmath.asin,
    "acos": cmath.acos,
    "atan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": cmath.log,
    "abs": abs,
}


class _Unknown(ArithmeticError):
    """There is no number for it."""


def differ(a: Sum, b: Sum) -> bool:
    """Whether two expressions are known to be different: False where they may be equal or have no value."""
    return any(_differ_at(a, b, point) for point in POINTS)


def value_of(expression: Sum) -> float | None:
    """The value of an expression without names in it, None where that is no finite real number."""
    try:
        value, size = _value(expression, complex(math.nan))
    except (ArithmeticError, ValueError):
        return None
    is_real = abs(value.imag) <= TOLERANCE * size
    return value.real if is_real and math.isfinite(value.real) else None


def _differ_at(a: Sum, b: Sum, point: complex) -> bool:
    try:
        (first, first_size), (second, second_size) = _value(a, point), _value(b, point)
    except (ArithmeticError, ValueError):
        return False
    difference = abs(first - second)
    return math.isfinite(difference) and difference > TOLERANCE * (first_size + second_size)


def _value(expression: Sum, point: complex) -> tuple[complex, float]:
    """The value, and the sum of the magnitudes of its terms."""
    value, size = 0j, 0.0
    for monomial, coefficient in expression.terms:
        term = float(coefficient) * _product(monomial, point)
        value += term
        size += abs(term)
    return value, size


def _product(monomial: Monomial, point: complex) -> complex:
    product = 1 + 0j
    for atom, exponent in monomial:
        base = _atom(atom, point)
        product *= base**exponent.numerator if exponent.denominator == 1 else base ** float(exponent)
    return product


def _atom(atom: Atom, point: complex) -> complex:
    if atom.kind == "number":
        (base,) = atom.parts
        assert isinstance(base, int)
        return complex(base)
    if atom.kind == "name":
        return _CONSTANTS.get(atom.text) or _name(atom.text, point)
    if atom.kind == "power":
        inner, monomial = atom.parts
        assert isinstance(inner, Atom) and not isinstance(monomial, Atom | Sum | int)
        return _atom(inner, point) ** _product(monomial, point)
    arguments = [_value(part, point)[0] for part in atom.parts if isinstance(part, Sum)]
    if atom.kind == "sum":
        return arguments[0]
    function = _FUNCTIONS.get(atom.text.partition("(")[0])
    if function is None or len(arguments) != 1:
        raise _Unknown(atom.text)
    return complex(function(arguments[0]))


def _name(text: str, point: complex) -> complex:
    # Between 1 and 2, the same in every process.
    return point * (1 + crc32(text.encode()) / 2**32)
