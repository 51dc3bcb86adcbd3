"""Structures of expressions: brackets, sets, relations, ratios, unions, matrices."""

from collections.abc import Iterable
from typing import NamedTuple, Union

from verl_ext.answers.normal_form import IMAGINARY, POSITIVE_NAMES, Atom, Sum

CONSTANTS = frozenset({*POSITIVE_NAMES, IMAGINARY, "∞"})


class Form(NamedTuple):
    """A structure of expressions: a tuple in brackets, a set, a relation, a ratio, a union, a matrix.

    Forms are equal if their texts are. `parts` are in the order of the text, sorted if order has no meaning.
    """

    text: str
    kind: str
    parts: tuple[Union[Sum, "Form"], ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts has a meaning."""
        return self.kind not in ("set", "all", "either") and not self.kind.startswith("union")


Value = Union[Sum, Form]  # noqa: UP007


def collection(kind: str, opening: str, parts: Iterable[Value], closing: str) -> Form:
    """Join parts in order between brackets."""
    members = tuple(parts)
    return Form(f"{opening}{', '.join(part.text for part in members)}{closing}", kind, members)


def brackets(parts: Iterable[Value], opening: str = "(", closing: str = ")") -> Form:
    """Build an ordered form: a point, a vector, an interval."""
    return collection(f"brackets {opening}{closing}", opening, parts, closing)


def sorted_by_text(parts: Iterable[Value]) -> list[Value]:
    """Sort parts whose order has no meaning."""
    return sorted(parts, key=lambda part: part.text)


def list_of(parts: Iterable[Value]) -> Form:
    """Build a multiset of values: 5, 5, 8."""
    return collection("set", "{", sorted_by_text(parts), "}")


def set_of(parts: Iterable[Value]) -> Form:
    """Build a set of values without repetitions."""
    return list_of({part.text: part for part in parts}.values())


def all_of(relations: Iterable[Value]) -> Form:
    """Build the conjunction of relations, in any order; nested conjunctions are flattened."""
    parts = (part for item in relations for part in parts_of(item, "all"))
    return collection("all", "", sorted_by_text({part.text: part for part in parts}.values()), "")


def parts_of(value: Value, kind: str) -> tuple[Value, ...]:
    """Return the parts of a form of this kind, or another value as the only part."""
    return value.parts if isinstance(value, Form) and value.kind == kind else (value,)


def is_relation(value: Value) -> bool:
    """Whether a value is an equation, an inequality or a conjunction of them."""
    return isinstance(value, Form) and (value.kind == "all" or value.kind.startswith("relation"))


def variables(value: Value) -> set[str]:
    """Return the names in a value that are not constants, including units."""
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
        inner = [base, *(part for part, _ in monomial)]
        return set().union(*map(_variables_of, inner))
    return set().union(*(variables(part) for part in atom.parts if isinstance(part, Sum)))
