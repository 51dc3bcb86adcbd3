"""Parser of functions, roots, fractions, sums and products."""

import re
from fractions import Fraction

from verl_ext.answers.expressions import ExpressionParser
from verl_ext.answers.normal_form import ONE, Atom, Sum, name, number
from verl_ext.answers.token_reader import parse_number
from verl_ext.answers.tokens import CLOSING, NotMath

_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan"}
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_SYMMETRIC = frozenset({"max", "min", "gcd", "lcm"})
_ROUNDINGS = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil")}
# Sums and products of more terms are not evaluated. Their limits must be whole numbers.
MAX_TERMS = 100
_INDEX = re.compile(r"_([a-zA-Z])=(-?\d{1,4})")
_FRACTION = re.compile(r"0?\.\d{1,9}|\d{1,9}/[1-9]\d{0,8}")


def _base(subscript: str) -> Sum:
    """Parse the base of a logarithm: a letter, 2, 0.5 or 1/2."""
    if len(subscript) == 1 and subscript.isalpha():
        return name(subscript)
    if not subscript.isdecimal() and not _FRACTION.fullmatch(subscript):
        raise NotMath(subscript)
    return parse_number(subscript)


class OperatorParser(ExpressionParser):
    """Adds functions, roots and commands."""

    def _function(self, function: str) -> Sum:
        exponent, base = None, None
        for _ in range(2):
            if function == "log" and self._next.kind == "sub":
                base = _base(self._take().text[1:])
            elif function == "log" and self._takes("_"):
                # The tokenizer leaves a subscript with nested braces unparsed.
                base = self._argument()
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
            self._expect(*CLOSING[opening])
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
        if function == "log":
            return self.algebra.divide(self.algebra.call("ln", argument), self.algebra.call("ln", base or number(10)))
        return self.algebra.call(function, argument)

    def _bare_argument(self) -> Sum:
        """Parse a function's argument without brackets, which ends at the next sign or function."""
        sign = number(self._signs("+", "-"))
        argument = self._sum_of(self._factor())
        while True:
            if self._next.kind == "unit":
                factor = self._unit()
            elif self._starts_factor() and self._next.kind != "function" and self._next.text != "(":
                factor = self._sum_of(self._factor())
            else:
                return self.algebra.multiply(sign, argument)
            argument = self.algebra.multiply(argument, factor)

    def _root(self) -> Sum:
        order = 2
        if self._takes("["):
            token = self._take()
            if not (token.text.isdigit() and len(token.text) < 3 and int(token.text) and self._takes("]")):
                self._fail()
            order = int(token.text)
        radicand = self._sum_of(self._primary())
        return self.algebra.power(radicand, number(Fraction(1, order)))

    def _command(self, command: str) -> Sum:
        if command in (r"\frac", r"\binom"):
            above, below = self._argument(), self._argument()
            return (
                self.algebra.divide(above, below)
                if command == r"\frac"
                else self.algebra.call("binomial", above, below)
            )
        if command in (r"\sum", r"\prod"):
            return self._sum_or_product(command)
        if command in _ROUNDINGS:
            closing, function = _ROUNDINGS[command]
            inner = self._sum_of(self._expression())
            self._expect(closing)
            return self.algebra.call(function, inner)
        self._fail()

    def _sum_or_product(self, command: str) -> Sum:
        """Evaluate a sum or product over whole numbers, by parsing its term once per number within the work budget."""
        limits: dict[str, str] = {}
        for _ in range(2):
            if self._next.kind == "sub":
                limits["from"] = self._take().text
            elif self._takes("^"):
                limits["to"] = self._argument().text
        index = _INDEX.fullmatch(limits.get("from", ""))
        if index is None or not re.fullmatch(r"-?\d{1,4}", limits.get("to", "")) or index[1] in self._indices:
            self._fail()
        first, last = int(index[2]), int(limits["to"])
        if not 0 <= last - first < MAX_TERMS:
            raise NotMath("a sum of too many terms or none")
        self._enter()
        start, total = self._position, number(0) if command == r"\sum" else ONE
        for value in range(first, last + 1):
            self._go_to(start)
            self._indices[index[1]] = number(value)
            term = self._sum_of(self._term())
            self.algebra.spend(self._position - start)
            total = self.algebra.add(total, term) if command == r"\sum" else self.algebra.multiply(total, term)
        del self._indices[index[1]]
        self._depth -= 1
        return total
