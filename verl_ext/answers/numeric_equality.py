"""Numeric equality test: two values are equal if they agree at fixed points to 400 bits, about 120 digits.

It decides what normal forms leave open, such as trigonometric identities. This is no proof, but unequal expressions
that agree to that many digits contain numbers about as long, and values with numbers of more than `MAX_DIGITS` digits
are not compared here. Since rounded values are compared, equality is an equivalence relation by construction. The work
is bounded by the length of the values.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple
from zlib import crc32

from mpmath import MPContext
from mpmath.libmp import mpf_pos

from verl_ext.answers.normal_form import Atom, Monomial, Rational, Sum
from verl_ext.answers.structures import Value, variables

# A value beyond these limits on its normal form, its numbers or its factorials (which are slow) equals only itself.
MAX_LENGTH = 500
MAX_DIGITS = 40
MAX_FACTORIALS = 4
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_FACTORIAL = re.compile(r"factorial\(|binomial\(")

# Bits of precision in computations, and bits compared.
PRECISION = 1024
COMPARED_BITS = 400
# A result smaller than 2^-NOISE_BITS times its operands is a rounding error.
NOISE_BITS = 450
# A term smaller than 2^-VISIBLE_BITS times another would be lost in the sum, and an argument beyond 2^±ARGUMENT_BITS
# in the values of some functions.
VISIBLE_BITS = 256
ARGUMENT_BITS = 64


class Point(NamedTuple):
    """A point of evaluation: assigns each name a real number of magnitude `scale` to twice `scale`.

    The number is negative if `mask` and the sum of the name's code points share a bit.
    """

    scale: Fraction
    mask: int


_ALL_POSITIVE, _ALL_NEGATIVE = 0, -1
# Large and small numbers distinguish |x - 5| from 5 - x.
POINTS = tuple(
    Point(Fraction(scale), mask) for scale in ("1", "1e9", "1e-6") for mask in (_ALL_POSITIVE, _ALL_NEGATIVE)
)
# Any two letters have different signs at one of these points, which distinguishes |xy| from xy.
SIGN_POINTS = tuple(Point(Fraction(1), 1 << bit) for bit in range(6))
# A prime above 2^32 as denominator: no polynomial value is then halfway between two roundings.
_PRIME = 4_294_967_311

# A private context, because other code may change the precision of mpmath's global one. The functions used below never
# change the precision, not even temporarily, so threads can share it.
_mp = MPContext()
_mp.prec = PRECISION
_Number = Any  # a real or complex number of `_mp`

_CONSTANTS: Mapping[str, _Number] = {"π": +_mp.pi, "e": +_mp.e, "i": _mp.mpc(0, 1)}


class _NoValueError(ArithmeticError):
    """The value does not exist, cannot be computed or is not precise enough."""


def equality_classes(values: Sequence[Value | None]) -> list[list[int]]:
    """Return the positions of each class of equal values. None equals nothing.

    `values` are distinct. Two values whose normal forms decide equality stay apart without a numeric comparison.
    """
    is_open = [value is not None and not _is_canonical(value) for value in values]
    if not any(is_open):
        return [[position] for position in range(len(values))]
    compared = {position: value for position, value in enumerate(values) if value is not None and _is_small(value.text)}
    names = set().union(*map(variables, compared.values()))
    classes = [[position] for position in range(len(values)) if position not in compared] + [[*compared]]
    for point in POINTS[:1] if not names else POINTS if len(names) == 1 else POINTS + SIGN_POINTS:
        classes = [subclass for members in classes for subclass in _split(members, compared, is_open, point)]
    return classes


def _split(members: list[int], values: Mapping[int, Value], is_open: Sequence[bool], point: Point) -> list[list[int]]:
    if len(members) == 1 or not any(is_open[position] for position in members):
        return [[position] for position in members]
    subclasses: dict[Hashable, list[int]] = defaultdict(list)
    for position in members:
        rounded = _rounded_value(values[position], point)
        # Values that do not exist at a point of scale 1 cannot be compared, so each is a class of its own.
        subclasses[("no value", position) if rounded is None and point.scale == 1 else rounded].append(position)
    return list(subclasses.values())


def real_value(expression: Sum) -> float | None:
    """Return the value of an expression without variables, None if it is not a finite real number."""
    try:
        value = expression.rational
        value = _evaluate(expression, POINTS[0]) if value is None else value
        number = math.nan if isinstance(value, _mp.mpc) else float(value)
    except (ArithmeticError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _is_small(text: str) -> bool:
    is_short = len(text) <= MAX_LENGTH and not _LONG_NUMBER.search(text)
    return is_short and len(_FACTORIAL.findall(text)) <= MAX_FACTORIALS


def _is_canonical(value: Value) -> bool:
    return value.is_canonical if isinstance(value, Sum) else all(map(_is_canonical, value.parts))


def _rounded_value(value: Value, point: Point) -> Hashable | None:
    """Return the rounded value at a point, by which values are compared; None if there is none."""
    try:
        return _rounded_parts(value, point)
    except (ArithmeticError, ValueError):
        return None


def _rounded_parts(value: Value, point: Point) -> Hashable:
    if isinstance(value, Sum):
        return _rounded(_evaluate(value, point))
    if value.kind.startswith("relation") and len(value.parts) == 1 and isinstance(value.parts[0], Sum):
        # Scale the relation: an equation equals its multiples, and an inequality its positive multiples.
        difference = value.parts[0]
        unit = _evaluate(difference, POINTS[0])
        return value.kind, _rounded(_evaluate(difference, point) / (unit if value.kind[-1] in "=≠" else abs(unit)))
    parts = [_rounded_parts(part, point) for part in value.parts]
    return value.kind, tuple(parts) if value.is_ordered else frozenset(Counter(parts).items())


def _rounded(value: _Number) -> Hashable:
    _magnitude(value)
    return tuple(mpf_pos(part, COMPARED_BITS, "n") for part in (value.real._mpf_, value.imag._mpf_))


def _magnitude(value: _Number) -> float:
    """Return the binary exponent of a number, -inf for zero; raises for infinity and NaN."""
    exponents = []
    for _, mantissa, exponent, bits in (value._mpf_,) if isinstance(value, _mp.mpf) else value._mpc_:
        if not mantissa and exponent:
            raise _NoValueError("not finite")
        exponents.append(exponent + bits if mantissa else -math.inf)
    return max(exponents)


def _without_noise(value: _Number) -> _Number:
    """Drop a real or imaginary part that is a rounding error, whose sign would choose the side of a branch cut."""
    if isinstance(value, _mp.mpf):
        return value
    real, imaginary = _magnitude(value.real), _magnitude(value.imag)
    if imaginary <= real - NOISE_BITS:
        return value.real
    return _mp.mpc(0, value.imag) if real < imaginary - NOISE_BITS else value


def _evaluate(expression: Sum, point: Point) -> _Number:
    terms = [_number(coefficient) * _product(monomial, point) for monomial, coefficient in expression.terms]
    total = sum(terms, start=_mp.zero)
    magnitudes = [magnitude for term in terms if (magnitude := _magnitude(term)) > -math.inf]
    if len(magnitudes) > 1:
        if point.scale == 1 and min(magnitudes) < max(magnitudes) - VISIBLE_BITS:
            raise _NoValueError("a term that is lost in the sum")
        if _magnitude(total) < max(magnitudes) - NOISE_BITS:
            return _mp.zero
    return _without_noise(total)


def _number(value: Rational) -> _Number:
    whole = _mp.mpf(value.numerator)
    return whole if value.denominator == 1 else whole / value.denominator


def _product(monomial: Monomial, point: Point) -> _Number:
    product = _mp.one
    for atom, exponent in monomial:
        product *= _power(_atom(atom, point), exponent)
    return _without_noise(product)


def _power(base: _Number, exponent: Rational) -> _Number:
    if exponent == 1:
        return base
    bounded = _bounded(_number(exponent))
    if exponent.denominator == 1:
        return base ** int(exponent)
    if exponent.denominator % 2 and isinstance(base, _mp.mpf) and base < 0:
        # The real root, as in `Algebra.power`.
        return (-1) ** exponent.numerator * (-base) ** bounded
    return base**bounded


def _bounded(argument: _Number) -> _Number:
    magnitude = _magnitude(argument)
    if magnitude > ARGUMENT_BITS or -math.inf < magnitude < -ARGUMENT_BITS:
        raise _NoValueError("an argument that is too large or too small")
    return argument


def _atom(atom: Atom, point: Point) -> _Number:
    if atom.kind == "number":
        (base,) = atom.parts
        return _mp.mpf(base)
    if atom.kind == "name":
        return _CONSTANTS.get(atom.text) or _name(atom.text, point)
    if atom.kind == "power":
        inner, monomial = atom.parts
        assert isinstance(inner, Atom) and not isinstance(monomial, Atom | Sum | int)
        return _without_noise(_atom(inner, point) ** _bounded(_product(monomial, point)))
    arguments = [_evaluate(part, point) for part in atom.parts if isinstance(part, Sum)]
    if atom.kind == "sum":
        return arguments[0]
    function = _FUNCTIONS.get(atom.text.partition("(")[0])
    if function is None:
        raise _NoValueError(f"no such function: {atom.text}")
    return _without_noise(function(*map(_bounded, arguments)))


def _name(text: str, point: Point) -> _Number:
    sign = -1 if sum(map(ord, text)) & point.mask else 1
    # crc32 gives the same number in every process, unlike hash().
    return _number(sign * point.scale * (1 + Fraction(crc32(text.encode()), _PRIME)))


def _or_zero(function: Callable[[_Number], _Number]) -> Callable[[_Number], _Number]:
    """Round tiny results of a function to zero, so that sin π is exactly 0."""

    def exact(argument: _Number) -> _Number:
        value = function(argument)
        return _mp.zero if _magnitude(value) < -NOISE_BITS else value

    return exact


def _real(value: _Number) -> _Number:
    if isinstance(value, _mp.mpc):
        raise _NoValueError("a complex number has no order")
    return value


def _floor(value: _Number) -> _Number:
    nearest = _mp.nint(_real(value))
    return nearest if _magnitude(value - nearest) < -NOISE_BITS else _mp.floor(value)


def _logarithm(value: _Number) -> _Number:
    if not value:
        raise _NoValueError("the logarithm of zero")
    return _mp.ln(value)


_sin, _cos = _or_zero(_mp.sin), _or_zero(_mp.cos)
# tanh is missing because even for small arguments it is 1 to more digits than are compared.
_FUNCTIONS: Mapping[str, Callable[..., _Number]] = {
    "sin": _sin,
    "cos": _cos,
    "tan": lambda x: _sin(x) / _cos(x),
    "cot": lambda x: _cos(x) / _sin(x),
    "sec": lambda x: 1 / _cos(x),
    "csc": lambda x: 1 / _sin(x),
    "asin": _or_zero(_mp.asin),
    "acos": _or_zero(_mp.acos),
    "atan": _or_zero(_mp.atan),
    "sinh": _or_zero(_mp.sinh),
    "cosh": _or_zero(_mp.cosh),
    "ln": _or_zero(_logarithm),
    "abs": abs,
    "floor": _floor,
    "ceil": lambda x: -_floor(-x),
    "max": lambda *values: max(map(_real, values)),
    "min": lambda *values: min(map(_real, values)),
    "factorial": _mp.factorial,
    "binomial": lambda n, k: _mp.factorial(n) / (_mp.factorial(k) * _mp.factorial(n - k)),
}
