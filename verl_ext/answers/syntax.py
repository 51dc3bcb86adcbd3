r"""Reads answers as mathematics: an expression, several of them in brackets or with commas, relations, matrices.

`read` takes text in its one spelling (`verl_ext.answers.spelling`) and returns what it says in normal form. It
evaluates nothing but exact arithmetic, and refuses what it does not know, what is nested too deeply and what is too
large (`NotMath`): such an answer is compared as text.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from verl_ext.answers.algebra import Sum, TooLarge, Undefined
from verl_ext.answers.expressions import ExpressionParser, value_of
from verl_ext.answers.forms import Form, Value, all_of, collection, is_relation, parts_of, set_of, variables
from verl_ext.answers.tokens import NotMath, Token, tokenize

_RELATIONS = {"=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "≤": "≤", "≥": "≥", "<=": "≤", ">=": "≥", "≠": "≠",
              "!=": "≠", "∈": "∈"}  # fmt: skip
_TURNED = {">": "<", "≥": "≤"}
_MATRIX = re.compile(r"\\begin\s*\{([pbB]?)matrix\}(.*)\\end\s*\{\1matrix\}", re.DOTALL)
_LABEL_IN_WORDS = re.compile(r"[A-Za-z ]+(?:\([A-Za-z ]*\))?\s*=([^=]+)")


class Reading(NamedTuple):
    """What an answer says. `bare` and `unit` are set where it is a number with a unit: the number, and the unit."""

    value: Value
    bare: Sum | None = None
    unit: str | None = None


class _Parser(ExpressionParser):
    """Adds lists and relations."""

    def __init__(self, tokens: list[Token], sign: int) -> None:
        super().__init__(tokens, sign)
        self._has_or = False

    def answer(self) -> Value:
        items = self._items(top=True)
        if self._next.kind != "end":
            self._fail()
        if len(items) == 1:
            return value_of(items[0])
        if not self._has_or and all(is_relation(item) for item in items):
            return all_of(items)
        labels = [item.parts[0].text for item in items if isinstance(item, Form) and item.kind == "assignment"]
        if len(labels) == len(items) and len(set(labels)) > 1:
            return set_of(items)
        return set_of(part for item in map(value_of, items) for part in parts_of(item, "set"))

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
        return parts[0] if len(parts) == 1 else all_of(parts)

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
        return (
            coefficient == 1
            and bool(monomial)
            and all(exponent == 1 and atom.kind in ("name", "call") for atom, exponent in monomial)
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


def _matrix(text: str) -> Form | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [[read(cell.strip()).value for cell in row.split("&")] for row in match[2].split(r"\\") if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise NotMath("rows of different lengths")
    return collection(
        "matrix", "[", (collection("row", "[", row, "]", ordered=True) for row in rows), "]", ordered=True
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
    tokens = tokenize(text)
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
        return Reading(set_of((value, other)) if value.text != other.text else value)
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
