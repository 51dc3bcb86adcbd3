r"""Parser of mathematical answers: expressions, lists and brackets of them, relations, matrices.

`parse` takes normalized text (`verl_ext.answers.normalize`) and returns normal forms. It evaluates only exact
arithmetic, and raises `NotMath` for text that it does not know, that is nested too deeply or that is too large. Such
answers are compared as text.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from verl_ext.answers.algebra import Algebra, TooLarge, Undefined
from verl_ext.answers.expressions import assigned_value
from verl_ext.answers.intervals import solution_interval, union
from verl_ext.answers.normal_form import Monomial, Rational, Sum, collect, name, number
from verl_ext.answers.operators import OperatorParser
from verl_ext.answers.relations import relation_of, solved_for
from verl_ext.answers.structures import (
    Form,
    Value,
    all_of,
    brackets,
    collection,
    is_relation,
    list_of,
    parts_of,
    set_of,
    sorted_by_text,
    variables,
)
from verl_ext.answers.tokens import CLOSING, VECTOR, NotMath, Token, tokenize

_RELATIONS = {"=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "≤": "≤", "≥": "≥", "<=": "≤", ">=": "≥", "≠": "≠",
              "!=": "≠", "∈": "∈"}  # fmt: skip
_MATRIX = re.compile(
    r"(?:[A-Za-z](?:_\w|\^\{?(?:-1|T)\}?)?\s*=\s*)?(?P<scalar>[^=&]*?)\s*(?:[*×]\s*)?"
    r"(?P<det>\\det\s*)?(?P<bracket>[(\[|]?)\s*\\begin\s*\{(?P<kind>[pbBv]?matrix|smallmatrix|array)\}"
    r"(?:\s*\{[lcr| ]*\})?(?P<rows>.*)"
    r"\\end\s*\{(?P=kind)\}\s*[)\]|]?(?P<transposed>\s*\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?)?",
    re.DOTALL,
)
_WHOLE_NUMBERS = re.compile(r"\((\d{1,3}), (\d{1,3})\)")
# The unit of 1 mol/L, which is also that of 1 M.
_MOLARITY = "L^(-1)*mol"
# Quantities that a formula may define. y = 2x + 1 is a line and AB = 2CD a relation, not a formula.
_DEFINED = re.compile(r"(?![xy]$)[A-Za-zα-ωΩ](?:_\w+|'+|(?:'+|\^\(-1\))?\([a-z]\))?")
# A value with a label in words: 24 in Area of △ABC = 24 and in Area = bh/2 = 24.
_LABEL_IN_WORDS = re.compile(
    r"(?!(?i:not?|yes|true|false)\b)[A-Za-z△∠ -]+(?:\([A-Za-z ]*\))?\s*=(?:(?:(?! and | or )[^,;])*=)?(.+)", re.DOTALL
)


class ParsedAnswer(NamedTuple):
    """The parsed content of an answer.

    value: the whole content.
    core: the value without its details, None if it has none.
    details: what other answers may leave out, as (kind, detail) pairs: a unit, the names of several values, or the sum
        or product of names that has the value.
    instead: another possible reading: the point (x, y) if x and y are given, the right side of a formula for a
        quantity, such as S = ah or f(x) = x + 1, f(x) = 2x for the line y = 2x, the interval of -1 < x < 4, or the
        components of a vector 3i - 4j.
    """

    value: Value
    core: Value | None = None
    details: tuple[tuple[str, str], ...] = ()
    instead: Value | None = None


class _Parser(OperatorParser):
    """Adds lists and relations."""

    def __init__(self, tokens: list[Token], sign: int) -> None:
        super().__init__(tokens, sign)
        self._has_or = False
        # Several names with their values, or a sum or product of names with its value.
        self.named: list[tuple[str, Value]] = []
        # The right side of a single equation whose left side is a quantity, or f(x) = 2x for y = 2x.
        self.formula: Value | None = None

    def answer(self) -> tuple[Value, Value]:
        """Return the value of the tokens, with and without the names of values (`self.named`)."""
        items = self._items(top=True)
        if self._next.kind != "end":
            self._fail()
        if len(items) == 1:
            value = assigned_value(items[0])
            function = self._tokens[0].text
            if function in ("C", "P") and self._tokens[1].text == "(" and _may_be_counted(value):
                # P(5, 2) and C(5, 2) are the same point, but not the same number.
                self.named = [(function, value)]
                return Form(f"{function}{value.text}", "assignment", (name(function), value)), value
            if isinstance(value, Form) and value.kind == "set" and len(value.parts) == 1:
                (value,) = value.parts
            return value, self.named[0][1] if self.named and is_relation(value) else value
        if not self._has_or and all(is_relation(item) for item in items):
            self.named = []
            return (lines := _lines_or_conditions(items)), lines
        labels = [item.parts[0].text for item in items if isinstance(item, Form) and item.kind == "assignment"]
        values = [part for item in map(assigned_value, items) for part in parts_of(item, "set")]
        if len(labels) == len(items) and _are_of_one_name(labels):
            self._has_or |= len(set(labels)) == 1
        elif len(labels) == len(items):
            self.named = [(item.parts[0].text, item.parts[1]) for item in items if isinstance(item, Form)]
            return set_of(items), list_of(values)
        if self._has_or and all(_is_product_of_names(value) for value in values):
            # Solutions may be joined by "and" or "or", but the options A or B are not both.
            either = collection("either", "either ", sorted_by_text(values), "")
            return either, either
        joined = set_of(values) if self._has_or else list_of(values)
        only = joined.parts[0] if len(joined.parts) == 1 and self._has_or else joined
        return only, only

    def _items(self, *, top: bool = False) -> list[Value]:
        items = [self._relation()]
        while self._takes(",", ";") or (top and (self._next.kind == "and" or self._follows_unit())):
            while top and self._next.kind == "and":
                self._has_or |= self._take().text == "or"
            items.append(self._relation())
        return items

    def _follows_unit(self) -> bool:
        """Whether a second number starts right after the unit of the first, as in 5 ft 6 in."""
        return bool(self.units) and self._next.kind == "number" and self._next.spaced

    def _relation(self) -> Value:
        sides, relations = [self._ratio()], []
        while self._next.text in _RELATIONS:
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
        # The value of x(x + 2) = x^2 + 2x and of P = 2(x + 5) + 2x = 4x + 10 is the last side.
        right = sides[-1]
        left = [side for side in sides[:-1] if side.text != right.text]
        if not left:
            return right
        if self._is_constant(right) and all(self._is_label(side) or self._is_constant(side) for side in left):
            label = next((side for side in left if not self._is_constant(side)), None)
            return right if label is None else self._assignment(label, right)
        if len(left) == 1 and self._is_constant(left[0]) and self._is_label(right):
            return self._assignment(right, left[0])
        if len(left) > 1:
            if not self._is_constant(right):
                self._fail()
            return right
        if left[0].text.startswith(VECTOR) and (components := _components(right)) is not None:
            return Form(f"{left[0].text}={components.text}", "assignment", (left[0], components))
        equation = self._compare(left[0], "=", right)
        (difference, *others) = equation.parts
        is_bare = not others and not self.units
        if is_bare and isinstance(difference, Sum) and (solved := solved_for(difference)) is not None:
            return solved
        if self._is_constant(right) and _is_quantity(left[0]):
            self.named = [(left[0].text, right)]
        elif isinstance(right, Sum) and _DEFINED.fullmatch(left[0].text) and not self._is_label(right):
            self.formula = None if variables(left[0]) & variables(right) else right
        elif left[0].text == "y" and isinstance(right, Sum) and variables(right) == {"x"}:
            self.formula = self._compare(name("f(x)"), "=", right)
        return equation

    def _assignment(self, label: Value, value: Value) -> Form:
        """Assign a value to a label. |x - 1| = 3 is an equation, which has two solutions if they are rational."""
        inside = _unknown_in_bars(label)
        if inside is None:
            return Form(f"{label.text}={value.text}", "assignment", (label, value))
        distance = value.rational if isinstance(value, Sum) else None
        if distance is not None and distance >= 0:
            sides = (self.algebra.subtract(inside, number(side)) for side in (distance, -distance))
            solutions = [solution.parts[1] for side in sides if (solution := solved_for(side)) is not None]
            if len(solutions) == 2:
                return set_of(solutions)
        return self._compare(label, "=", value)

    def _is_constant(self, value: Value) -> bool:
        return variables(value) <= self.units

    def _is_label(self, value: Value) -> bool:
        """Whether a value is a name, as x, AB, f(x), an angle, (x, y) and a:b are, rather than a product such as xy."""
        if isinstance(value, Form):
            # An assignment is a label, too: C(5, 2) was parsed as a named point.
            return value.kind == "assignment" or (
                value.kind in ("brackets ()", "ratio") and all(map(self._is_label, value.parts))
            )
        if len(value.terms) != 1:
            return False
        monomial, coefficient = value.terms[0]
        return (
            coefficient == 1
            and bool(monomial)
            and all(exponent == 1 and atom.kind in ("name", "call") for atom, exponent in monomial)
            and (len(monomial) == 1 or all(atom.text[0].isupper() for atom, _ in monomial))
        )

    def _compare(self, a: Value, relation: str, b: Value) -> Form:
        if isinstance(a, Sum) and isinstance(b, Sum):
            return relation_of(self.algebra, a, relation, b)
        if relation not in ("=", "≠"):
            self._fail()
        first, second = sorted_by_text((a, b))
        return Form(f"{first.text}{relation}{second.text}", f"relation {relation}", (first, second))

    def _ratio(self) -> Value:
        parts = [self._union()]
        while self._takes(":"):
            parts.append(self._union())
        if len(parts) > 1 and (self.units or any(re.match(r"0\d", token.text) for token in self._tokens)):
            # Times such as 1:00 PM and 9:05 are not ratios.
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
        if sign == "∪" and all(isinstance(part, Form) and part.kind == "set" for part in parts):
            return set_of(element for part in parts for element in parts_of(part, "set"))
        return union(parts, sign)


def _lines_or_conditions(relations: Sequence[Value]) -> Form:
    """List equations and alternatives such as x < 1, x > 3; combine other relations into a conjunction."""
    if all(isinstance(item, Form) and item.kind == "relation =" for item in relations):
        return set_of(relations)
    together = all_of(relations)
    interval = solution_interval(together)
    ends = interval.parts if interval else ()
    numbers = [value for end in ends if isinstance(end, Sum) and (value := end.rational) is not None]
    return set_of(relations) if len(numbers) == 2 and numbers[0] > numbers[1] else together


def _may_be_counted(point: Value) -> bool:
    """Whether coordinates may as well be the numbers of combinations or permutations, as in C(5, 2)."""
    numbers = _WHOLE_NUMBERS.fullmatch(point.text)
    return numbers is not None and int(numbers[1]) >= int(numbers[2])


def _unknown_in_bars(value: Value) -> Sum | None:
    """Return the expression in x or y whose absolute value this is; None for other values, such as |AB| and |z|."""
    if isinstance(value, Form) or len(value.terms) != 1:
        return None
    ((atom, _), *others) = value.terms[0][0]
    inside = atom.parts[0] if atom.text.startswith("abs(") and not others else None
    return inside if isinstance(inside, Sum) and variables(inside) in ({"x"}, {"y"}) else None


def _is_product_of_names(value: Value) -> bool:
    return isinstance(value, Sum) and len(value.terms) == 1 and value.rational is None and _is_quantity(value)


def _is_quantity(value: Value) -> bool:
    """Whether a question may ask for the value: a product, quotient or sum of names, such as xy, AB/CD or a + b."""
    if isinstance(value, Form) or not value.terms:
        return False
    coefficients = {coefficient for _, coefficient in value.terms}
    are_names = all(atom.kind == "name" and power in (1, -1) for monomial, _ in value.terms for atom, power in monomial)
    if len(value.terms) == 1:
        return are_names and coefficients == {1}
    are_quantities = all(
        len(monomial) == 1 or all(atom.text.isupper() for atom, _ in monomial) for monomial, _ in value.terms
    )
    return are_names and are_quantities and coefficients <= {1, -1}


def _are_of_one_name(labels: list[str]) -> bool:
    """Whether all labels are x, or x with a subscript, so that the values are solutions in any order."""
    return len({label.partition("_")[0] for label in labels}) == 1 and (
        len(set(labels)) == 1 or all("_" in label for label in labels)
    )


def _matrix(text: str) -> ParsedAnswer | None:
    """Parse a matrix, its multiple, transpose or determinant; None for other text. A vector may mean a point."""
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [[parse(cell.strip()).value for cell in row.split("&")] for row in match["rows"].split(r"\\") if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise NotMath("rows of different lengths")
    if match["kind"] == "vmatrix" or match["bracket"] == "|" or match["det"]:
        if match["transposed"] or not all(isinstance(cell, Sum) for row in rows for cell in row):
            raise NotMath("a determinant of things other than expressions")
        determinant = _determinant([[cell for cell in row if isinstance(cell, Sum)] for row in rows])
        scalar = parse(match["scalar"] or "1").value
        return ParsedAnswer(_scaled(scalar, determinant))
    if match["scalar"]:
        scalar = parse("-1" if match["scalar"] == "-" else match["scalar"]).value
        rows = [[_scaled(scalar, cell) for cell in row] for row in rows]
    if match["transposed"]:
        rows = [list(column) for column in zip(*rows, strict=True)]
    matrix = collection("matrix", "[", (collection("row", "[", row, "]") for row in rows), "]")
    cells = [cell for row in rows for cell in row]
    is_vector = len(cells) > 1 and len(rows) in (1, len(cells))
    return ParsedAnswer(matrix, instead=brackets(cells) if is_vector else None)


def _determinant(rows: Sequence[Sequence[Sum]]) -> Sum:
    """Expand a determinant of at most three rows along the first row."""
    if not len(rows) == len(rows[0]) <= 3:
        raise NotMath("no determinant of three rows or less")
    if len(rows) == 1:
        return rows[0][0]
    algebra = Algebra()
    minors = [_determinant([[*row[:column], *row[column + 1 :]] for row in rows[1:]]) for column in range(len(rows))]
    return algebra.add(
        *(algebra.multiply(number((-1) ** column), algebra.multiply(cell, minor))
          for column, (cell, minor) in enumerate(zip(rows[0], minors, strict=True)))
    )  # fmt: skip


def _scaled(scalar: Value, cell: Value) -> Value:
    if isinstance(scalar, Form) or isinstance(cell, Form):
        raise NotMath("no product of numbers")
    return Algebra().multiply(scalar, cell)


def parse(text: str) -> ParsedAnswer:
    """Parse normalized text; raises NotMath if it is not mathematics.

    An equation that names a constant is parsed as the constant: x = 5 as 5. Values joined by commas, "and" or "or", and
    the two values of a ±, are parsed as a list.
    """
    try:
        return _parse(text)
    except (TooLarge, Undefined, RecursionError, OverflowError) as error:
        raise NotMath(type(error).__name__) from error


def _parse(text: str) -> ParsedAnswer:
    if r"\begin" in text and (matrix := _matrix(text)) is not None:
        return matrix
    tokens = tokenize(text)
    if "-" in text:
        _refuse_ranges(tokens)
    parser = _Parser(tokens, 1)
    try:
        value, core = parser.answer()
    except NotMath:
        labelled = _LABEL_IN_WORDS.fullmatch(text)
        if labelled is None:
            raise
        reading = _parse(labelled[1].strip())
        if reading.core is None and variables(reading.value):
            raise
        return reading
    if parser.has_plus_minus:
        others = _Parser(tokens, -1).answer()
        value, core = _both(value, others[0]), _both(core, others[1])
    details = {} if core.text == value.text else {"names": _names(parser.named, parser.units)}
    if parser.units and (without := _without_units(core, parser.units)) is not None:
        core, unit = without
        if unit:
            details["unit"] = _MOLARITY if unit == "M" else unit
    if not details:
        formula = parser.formula if isinstance(value, Form) and value.kind == "relation =" else None
        return ParsedAnswer(value, instead=formula or solution_interval(value) or _components(value))
    point = None
    if len(parser.named) > 1 and all(len(label) == 1 for label, _ in parser.named):
        point = brackets(coordinate for _, coordinate in sorted(parser.named, key=lambda pair: pair[0]))
    return ParsedAnswer(value, core, tuple(sorted(details.items())), point)


def _components(value: Value) -> Form | None:
    """Return the components of a sum of multiples of i, j and k, else None. Beside j, i is not the imaginary unit."""
    if not isinstance(value, Sum):
        return None
    multiples = {monomial[0][0].text.removeprefix("hat").removeprefix(VECTOR): coefficient
                 for monomial, coefficient in value.terms
                 if len(monomial) == 1 and monomial[0][1] == 1}  # fmt: skip
    if len(multiples) < len(value.terms) or not {"j"} <= set(multiples) <= set("ijk"):
        return None
    return brackets(number(multiples.get(axis, 0)) for axis in ("ijk" if "k" in multiples else "ij"))


def _both(plus: Value, minus: Value) -> Value:
    """Return the set of the two values of a ±, or a single value if they are equal."""
    if plus.text == minus.text:
        return plus
    return set_of(part for value in (plus, minus) for part in parts_of(value, "set"))


def _names(named: list[tuple[str, Value]], units: set[str]) -> str:
    bare = sorted((label, (_without_units(value, units) or (value,))[0].text) for label, value in named)
    return ", ".join(f"{label}={text}" for label, text in bare)


def _refuse_ranges(tokens: list[Token]) -> None:
    """Raise NotMath for a list with a part such as 5-10, which is a range or score rather than a difference."""
    depth = 0
    start = 0
    for position, token in enumerate(tokens):
        depth += (token.text in CLOSING) - (token.text in (")", "]", "}", r"\}"))
        if depth == 0 and (token.text in (",", ";") or token.kind in ("and", "end")):
            item = [member for member in tokens[start:position] if member.kind != "unit"]
            if [member.kind for member in item] == ["number", "symbol", "number"] and item[1].text == "-":
                raise NotMath("a range")
            start = position + 1


def _without_units(value: Value, units: set[str]) -> tuple[Value, str] | None:
    """Separate a value from its units; None if that is not possible."""
    if isinstance(value, Sum):
        return _sum_without_units(value, units)
    if value.kind not in ("set", "brackets ()"):
        return value, ""
    parts = [separated for part in value.parts if (separated := _without_units(part, units)) is not None]
    if len(parts) < len(value.parts):
        return None
    symbols = {unit for _, unit in parts if unit}
    without = (list_of if value.kind == "set" else brackets)(part for part, _ in parts)
    return without, symbols.pop() if len(symbols) == 1 else value.text if symbols else ""


def _sum_without_units(value: Sum, units: set[str]) -> tuple[Sum, str] | None:
    bare: list[tuple[Monomial, Rational]] = []
    units_of_terms: set[str] = set()
    for monomial, coefficient in value.terms:
        unit = tuple((atom, exponent) for atom, exponent in monomial if atom.text in units)
        bare.append((tuple(factor for factor in monomial if factor not in unit), coefficient))
        units_of_terms.add(Sum(((unit, 1),)).text if unit else "")
    result = collect(bare)
    symbols = units_of_terms - {""}
    if len(symbols) > 1 or ("" in units_of_terms and symbols and symbols != {"°"} and variables(result)):
        return None
    if symbols & {"%", "‰"} and variables(result):
        # A number shows by its size whether it is a percentage, x does not.
        return None
    return result, symbols.pop() if symbols else ""
