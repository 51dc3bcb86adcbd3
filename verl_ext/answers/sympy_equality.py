"""Whether two values are equal, by sympy: what may hang, so that it is called in a child process only.

The values have been read already and are given to sympy as objects; no text is (`verl_ext.answers.sandbox`).
"""

import sympy

from verl_ext.answers.algebra import Atom, Monomial, Sum
from verl_ext.answers.structures import Form, Value

_FUNCTIONS = {
    "abs": sympy.Abs,
    "ceil": sympy.ceiling,
    "binomial": sympy.binomial,
    "ln": sympy.log,
    "max": sympy.Max,
    "min": sympy.Min,
}


class Undecided(Exception):
    """Neither equal nor different, as far as sympy can say."""


def equal(a: Value, b: Value) -> bool:
    """Whether two values are equal for all real numbers that their names may stand for."""
    if isinstance(a, Sum) and isinstance(b, Sum):
        return _equal_sums(a, b)
    if isinstance(a, Sum) or isinstance(b, Sum) or a.kind != b.kind or len(a.parts) != len(b.parts):
        return False
    if a.kind in ("relation =", "relation ≠", "relation <", "relation ≤"):
        return _same_relation(a, b)
    if not a.is_ordered:
        rest = list(b.parts)
        for part in a.parts:
            match = next((other for other in rest if equal(part, other)), None)
            if match is None:
                return False
            rest.remove(match)
        return True
    return all(equal(part, other) for part, other in zip(a.parts, b.parts, strict=True))


def _equal_sums(a: Sum, b: Sum) -> bool:
    if a.text == b.text:
        return True
    return _is_zero(_expression(a) - _expression(b))


def _is_zero(difference: sympy.Expr) -> bool:
    """The cheapest ways first: rational functions of exponentials, nested roots, all that sympy knows."""
    if sympy.cancel(sympy.together(sympy.expand(difference.rewrite(sympy.exp)))) == 0:
        return True
    if sympy.radsimp(sympy.sqrtdenest(difference)) == 0:
        return True
    verdict = difference.equals(0)
    if verdict is None:
        raise Undecided(str(difference))
    return bool(verdict)


def _same_relation(a: Form, b: Form) -> bool:
    """Whether both sides differ by a factor only: of any sign in an equation, of a positive one in an inequality."""
    if len(a.parts) != 1 or len(b.parts) != 1:
        return all(equal(part, other) for part, other in zip(a.parts, b.parts, strict=True))
    (first,), (second,) = a.parts, b.parts
    if isinstance(first, Form) or isinstance(second, Form):
        return False
    ratio = sympy.simplify(_expression(first) / _expression(second))
    return bool(ratio.is_number and ratio.is_finite and (ratio > 0 if a.kind[-1] in "<≤" else ratio != 0))


def _expression(value: Sum) -> sympy.Expr:
    return sympy.Add(*(sympy.Rational(c.numerator, c.denominator) * _product(monomial) for monomial, c in value.terms))


def _product(monomial: Monomial) -> sympy.Expr:
    return sympy.Mul(
        *(_atom(atom) ** sympy.Rational(exponent.numerator, exponent.denominator) for atom, exponent in monomial)
    )


def _atom(atom: Atom) -> sympy.Expr:
    if atom.kind == "name":
        constants = {"π": sympy.pi, "e": sympy.E, "i": sympy.I, "∞": sympy.oo}
        return constants.get(atom.text, sympy.Symbol(atom.text, real=True))
    if atom.kind == "number":
        return sympy.Integer(atom.parts[0])
    if atom.kind == "power":
        base, monomial = atom.parts
        assert isinstance(base, Atom) and isinstance(monomial, tuple)
        return _atom(base) ** _product(monomial)  # type: ignore[arg-type]
    arguments = [_expression(part) for part in atom.parts if isinstance(part, Sum)]
    if atom.kind == "sum":
        return arguments[0]
    function = atom.text.partition("(")[0]
    return (_FUNCTIONS.get(function) or getattr(sympy, function))(*arguments)


# Sympy loads much of itself at first use: here, before any child is forked, instead of in each of them.
_x, _root = sympy.Symbol("x", real=True), sympy.sqrt(2)
for _difference in (sympy.sin(2 * _x) - sympy.cos(_x), sympy.sqrt(2 + _root) - _root, _x / (_x + 1) - _x):
    _is_zero(_difference)
