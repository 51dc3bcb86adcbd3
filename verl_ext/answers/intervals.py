"""Convert inequalities in one unknown to intervals: -1 < x < 4 to (-1, 4)."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from verl_ext.answers.algebra import Algebra
from verl_ext.answers.normal_form import MINUS_ONE, Sum, name, number
from verl_ext.answers.structures import Form, Value, brackets, sorted_by_text, variables

_INFINITY = name("∞")
_RELATIONS = ("relation <", "relation ≤", "relation ≠")


class _Bound(NamedTuple):
    """An upper or lower bound of the unknown."""

    unknown: str
    value: Sum
    is_upper: bool
    is_included: bool


def solution_interval(value: Value) -> Form | None:
    """Return the interval or union of intervals of x > 3, -1 < x < 4, x ≠ 3 or x < -2 or x > 2; else None."""
    solution = _intervals(value)
    return solution and solution[1]


def union(parts: Iterable[Value], sign: str = "∪") -> Form:
    """Return the union or intersection of parts, whose order does not matter."""
    members = sorted_by_text({part.text: part for part in parts}.values())
    return Form(sign.join(part.text for part in members), f"union {sign}", tuple(members))


def _intervals(value: Value) -> tuple[str, Form] | None:
    """Return the unknown and its intervals, None for other values."""
    if not isinstance(value, Form):
        return None
    if value.kind == "set":
        solutions = [solution for part in value.parts if (solution := _intervals(part))]
        if len(solutions) < len(value.parts) or len({unknown for unknown, _ in solutions}) != 1:
            return None
        return solutions[0][0], union(interval for _, interval in solutions)
    parts = value.parts if value.kind == "all" else (value,)
    bounds = [bound for part in parts if (bound := _bound(part))]
    if len(bounds) < len(parts) or len({bound.unknown for bound in bounds}) != 1:
        return None
    if value.kind == "relation ≠":
        (bound,) = bounds
        return bound.unknown, union(_between([bound._replace(is_upper=side)]) for side in (False, True))
    return (bounds[0].unknown, _between(bounds)) if len({bound.is_upper for bound in bounds}) == len(bounds) else None


def _bound(relation: Value) -> _Bound | None:
    """Solve k * unknown + rest < 0 for its bound; None for other relations."""
    if not isinstance(relation, Form) or relation.kind not in _RELATIONS or len(relation.parts) != 1:
        return None
    (difference,) = relation.parts
    if not isinstance(difference, Sum):
        return None
    unknowns = [term for term in difference.terms if variables(Sum((term,)))]
    if len(unknowns) != 1:
        return None
    ((factors, slope),) = unknowns
    if len(factors) != 1 or factors[0][1] != 1 or factors[0][0].kind not in ("name", "call"):
        return None
    rest = Sum(tuple(term for term in difference.terms if term is not unknowns[0]))
    value = Algebra().multiply(number(Fraction(-1) / slope), rest)
    return _Bound(factors[0][0].text, value, slope > 0, relation.kind == "relation ≤")


def _between(bounds: Iterable[_Bound]) -> Form:
    """Return the interval between a lower and an upper bound; a missing bound is infinite."""
    ends = {bound.is_upper: bound for bound in bounds}
    lower, upper = ends.get(False), ends.get(True)
    return brackets(
        (
            lower.value if lower else Algebra().multiply(MINUS_ONE, _INFINITY),
            upper.value if upper else _INFINITY,
        ),
        "[" if lower and lower.is_included else "(",
        "]" if upper and upper.is_included else ")",
    )
