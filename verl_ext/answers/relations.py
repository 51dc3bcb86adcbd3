"""Normal forms of equations and inequalities: the scaled difference of the sides, compared with 0."""

from fractions import Fraction

from verl_ext.answers.algebra import Algebra
from verl_ext.answers.normal_form import Atom, Rational, Sum, name, number
from verl_ext.answers.structures import Form, all_of, set_of, variables

# Maximum number of denominators to clear.
MAX_DENOMINATORS = 3

_TURNED = {">": "<", "≥": "≤"}


def relation_of(algebra: Algebra, a: Sum, relation: str, b: Sum) -> Form:
    """Return the normal form of a relation: multiples of equations and positive multiples of inequalities are equal."""
    if relation in _TURNED:
        a, relation, b = b, _TURNED[relation], a
    difference = algebra.subtract(a, b)
    if relation == "=":
        difference = _without_denominators(algebra, difference)
    difference = algebra.primitive(difference, signed=relation in ("=", "≠"))
    if relation in ("<", "≤") and (bounds := _without_absolute_value(algebra, difference, relation)) is not None:
        return bounds
    return Form(f"{difference.text}{relation}0", f"relation {relation}", (difference,))


def _without_denominators(algebra: Algebra, difference: Sum) -> Sum:
    """Turn y - 6/x = 0 into xy - 6 = 0, unless the result may be zero where a denominator is, as with y/x - 2 = 0."""
    cleared = difference
    below: list[tuple[Atom, Sum]] = []
    # Repeat, because a product may bring out denominators from within a sum.
    for _ in range(MAX_DENOMINATORS):
        lowest = {atom: exponent for monomial, _ in cleared.terms for atom, exponent in monomial if exponent == -1}
        if not lowest:
            break
        atom = min(lowest)
        base = atom.parts[0] if atom.kind == "sum" else name(atom.text)
        if atom.kind not in ("name", "sum") or not isinstance(base, Sum):
            return difference
        below.append((atom, base))
        inverse = ((atom, -1),)
        cleared = algebra.add(*(
            Sum(((tuple(factor for factor in monomial if factor not in inverse), coefficient),))
            if inverse[0] in monomial else algebra.multiply(Sum(((monomial, coefficient),)), base)
            for monomial, coefficient in cleared.terms
        ))  # fmt: skip
    if any(exponent < 0 for monomial, _ in cleared.terms for _, exponent in monomial):
        return difference
    return cleared if all(_differs_from_zero(algebra, cleared, base) for _, base in below) else difference


def _differs_from_zero(algebra: Algebra, expression: Sum, base: Sum) -> bool:
    """Whether an expression is a nonzero constant wherever `base` is zero."""
    root = _root_of(base)
    if root is None:
        return False
    unknown, value = root
    rest = algebra.substitute(expression, Atom(unknown, "name"), value)
    return bool(rest.terms) and not variables(rest) and len(rest.terms) == 1


def _root_of(difference: Sum) -> tuple[str, Sum] | None:
    """Return the only name of a linear expression and its value at the root; None for other expressions."""
    names = variables(difference)
    if len(names) != 1 or len(difference.terms) > 2:
        return None
    (unknown,) = names
    slope: Rational = 0
    constant: Rational = 0
    for monomial, coefficient in difference.terms:
        if not monomial:
            constant = coefficient
        elif len(monomial) == 1 and monomial[0][0].kind == "name" and monomial[0][1] == 1:
            slope = coefficient
        else:
            return None
    return (unknown, number(Fraction(-constant, slope))) if slope else None


def solved_for(difference: Sum) -> Form | None:
    """Solve an equation such as x - 5 = 0 for its only name; None for other equations."""
    root = _root_of(difference)
    return root and Form(f"{root[0]}={root[1].text}", "assignment", (name(root[0]), root[1]))


def _without_absolute_value(algebra: Algebra, difference: Sum, relation: str) -> Form | None:
    """Turn k|X| + R < 0 into kX + R < 0 and -kX + R < 0: both hold for a positive k, either for a negative k."""
    absolute = [term for term in difference.terms if any(atom.text.startswith("abs(") for atom, _ in term[0])]
    if len(absolute) != 1:
        return None
    ((monomial, k),) = absolute
    ((atom, exponent), *others) = monomial
    if others or exponent != 1:
        return None
    (inner,) = atom.parts
    assert isinstance(inner, Sum)
    rest = Sum(tuple(term for term in difference.terms if term[0] != monomial))
    sides = (algebra.add(algebra.multiply(number(factor), inner), rest) for factor in (k, -k))
    parts = [relation_of(algebra, side, relation, number(0)) for side in sides]
    return all_of(parts) if k > 0 else set_of(parts)
