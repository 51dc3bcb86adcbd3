"""Recursive-descent parser of expressions, from tokens of plain text or LaTeX to normal forms.

`verl_ext.answers.operators` adds functions, roots and commands, and `verl_ext.answers.syntax` parses the content of
brackets, which may be more than an expression.
"""

import math
import re
from abc import abstractmethod

from verl_ext.answers.algebra import MAX_FACTORIAL
from verl_ext.answers.normal_form import ONE, Sum, name, number
from verl_ext.answers.phrases import CHANGES, COMPARATIVES
from verl_ext.answers.structures import Form, Value, brackets, set_of, variables
from verl_ext.answers.token_reader import TokenReader, parse_number
from verl_ext.answers.tokens import CLOSING, VECTOR, Token
from verl_ext.answers.units import ORDINAL, POWERS, POWERS_BEHIND, UNITS, unit_of

# Longest phrase for what a number counts, as in "students in the class".
MAX_WORDS = 7
SIGNS = ("+", "-", "±", "∓")
# Words that are never a unit: a number followed by one of them is more than a quantity.
_NO_UNITS = frozenset({
    "is", "are", "was", "not", "no", "if", "or", "than", "when", "where", "only", "but", "then", "because", "either",
    "for", "to", "below", "above", "under", "over", "minus", "plus", "negative", "positive", "zero", "by", "of", "out",
    "ago", "later", "before", "after", "ahead", "behind", "short", "too", "squared", "cubed", "am", "pm", "bc", "bce",
    "noon", "midnight", "o'clock", "remainder", "and", "with",
} | CHANGES | COMPARATIVES)  # fmt: skip
_PARTITIVE = frozenset({"the", "them", "these", "those", "all", "it", "us", "which", "whom"})
# Words to ignore in a unit: ways, different ways and possible ways are the same unit.
_ANY = frozenset({"different", "distinct", "possible"})
_SINGULARS = {"people": "person", "children": "child"}
_PLURAL = re.compile("(?:(?<=[xh])|(?<=ss))es$|(?<!s)s$")
_NO_CHINESE_UNITS = "以多不超至到或分第左右"
_POINT = re.compile(r"[A-Z](?:_\d)?'*")
_FUNCTION_NAMES = frozenset("fghpqFGHPQ")
_MINUS_FIRST = re.compile(r"\^ (?:\{ - 1 \}|- 1) \(")
_CURRENCIES = frozenset("$€£¥₹₩₽")


class ExpressionParser(TokenReader):
    """Parses the tokens once, reading ± as `sign`, 1 or -1."""

    def __init__(self, tokens: list[Token], sign: int) -> None:
        super().__init__(tokens)
        self._bars = 0
        self._sign = sign
        self.has_plus_minus = False
        # Names that were read as units.
        self.units: set[str] = set()
        # The current values of indices of sums and products, by name.
        self._indices: dict[str, Sum] = {}

    @abstractmethod
    def _items(self) -> list[Value]:
        """Parse the items between brackets, separated by commas."""

    @abstractmethod
    def _function(self, function: str) -> Sum:
        """Parse a function's exponent, base and argument."""

    @abstractmethod
    def _root(self) -> Sum:
        """Parse a root after its sign."""

    @abstractmethod
    def _command(self, command: str) -> Sum:
        """Parse the arguments of any other LaTeX command, such as a fraction."""

    # Expressions

    def _sum_of(self, value: Value) -> Sum:
        if isinstance(value, Form):
            self._fail()
        return value

    def _expression(self) -> Value:
        terms = [self._signed_term()]
        while self._next.text in SIGNS:
            terms.append(self._signed_term())
        return terms[0] if len(terms) == 1 else self.algebra.add(*map(self._sum_of, terms))

    def _signed_term(self) -> Value:
        sign = self._signs(*SIGNS)
        value = self._term()
        return value if sign == 1 else self._product(number(-1), value)

    def _signs(self, *allowed: str) -> int:
        """Take the signs before a value and return their product."""
        product = 1
        while self._next.text in allowed:
            sign = self._take().text
            self.has_plus_minus |= sign in "±∓"
            product *= {"+": 1, "-": -1, "±": self._sign, "∓": -self._sign}[sign]
        return product

    def _term(self) -> Value:
        value = self._factor()
        while True:
            if self._next.text in ("*", "×"):
                sign = self._take().text
                factors = self._sum_of(value), self._operand()
                if sign == "×" and all(map(_has_vector, factors)):
                    # A cross product does not commute.
                    self._fail()
                value = self.algebra.multiply(*factors)
            elif self._takes("/", "per"):
                value = self.algebra.divide(self._sum_of(value), self._operand())
            elif self._next.kind in ("unit", "power") or (self._next.kind == "word" and variables(value) <= {ORDINAL}):
                value = self.algebra.multiply(self._sum_of(value), self._unit())
            elif self._starts_factor() or self._is_number_behind(value):
                value = self._product(value, self._factor())
            else:
                return value

    def _is_number_behind(self, value: Value) -> bool:
        """Whether the next number is a factor, as in 3!2 and (n-2)180."""
        before = self._tokens[self._position - 1].text
        return self._next.kind == "number" and (
            before == "!" or (before == ")" and not self._next.spaced and bool(variables(value)))
        )

    def _product(self, value: Value, factor: Value) -> Value:
        """Multiply factors written side by side; a number may scale a vector, as in 2(1, 3)."""
        if isinstance(factor, Form) and factor.kind == "brackets ()" and not variables(value):
            return brackets(self.algebra.multiply(self._sum_of(value), self._sum_of(part)) for part in factor.parts)
        return self.algebra.multiply(self._sum_of(value), self._sum_of(factor))

    def _operand(self) -> Sum:
        """Parse the operand of * or /; after a unit, another unit, as in km/h and N*m."""
        if self.units and (self._next.kind in ("power", "word") or unit_of(self._next.text)):
            return self._unit()
        if self.units and self._next.text == "(" and unit_of(self._tokens[self._position + 1].text):
            return self._units_in_brackets()
        sign = number(self._signs("+", "-"))
        return self.algebra.multiply(sign, self._sum_of(self._factor()))

    def _units_in_brackets(self) -> Sum:
        """Parse a product of units in the denominator, as in J/(kg*K)."""
        self._take()
        product = self._unit()
        while not self._takes(")"):
            self._takes("*", "×")
            product = self.algebra.multiply(product, self._unit())
        return product

    def _starts_factor(self) -> bool:
        token = self._next
        if token.kind in ("name", "function"):
            return True
        if token.kind == "command":
            return token.text not in (r"\}", r"\{", r"\rfloor", r"\rceil", r"\right")
        return token.text in ("(", "{", "√") or (token.text == "|" and not self._bars)

    def _unit(self) -> Sum:
        exponent = 1
        while self._next.text in POWERS:
            exponent = POWERS[self._take().text]
        symbol = self._take().text if (unit_of(self._next.text) or self._next.kind == "unit") else self._words()
        symbol = unit_of(symbol) or symbol
        self.units.add(symbol)
        unit = name(symbol)
        if self._next.text in POWERS_BEHIND:
            exponent = POWERS_BEHIND[self._take().text]
        unit = self.algebra.power(unit, number(exponent))
        return self._raised(unit)

    def _words(self) -> str:
        """Parse what a number counts, such as apples, into a unit that is the same for singular and plural."""
        words: list[str] = []
        while len(words) < MAX_WORDS:
            if words and self._next.text == "-" and not self._next.spaced:
                # A hyphen within a unit, as in light-years.
                self._take()
            if self._next.kind != "word":
                break
            words.append(self._take().text.lower())
        if words and not words[0].isascii() and any(sign in words[0] for sign in _NO_CHINESE_UNITS):
            self._fail()
        ends = self._next.kind in ("end", "and") or self._next.text in (",", ";", "per", "/")
        # 5 pieces of wood is a quantity; 5 of them and 5 parts of the whole are not.
        counts = not _NO_UNITS & set(words) - {"of"} and not (
            "of" in words and (words[0] == "of" or _PARTITIVE & set(words))
        )
        if not (0 < len(words) < MAX_WORDS and ends and counts):
            self._fail()
        counted = " ".join(_SINGULARS.get(word, word) for word in words if word not in _ANY)
        return unit_of(counted) or f'"{_PLURAL.sub("", counted)}"'

    def _factor(self) -> Value:
        if self._next.kind == "unit":
            if not self.units:
                self._fail()
            return self._unit()
        value = self._postfix(self._primary())
        return self._raised(value) if self._next.text in ("^", "**") else value

    def _raised(self, value: Value) -> Sum:
        base = self._sum_of(value)
        if not self._takes("^", "**"):
            return base
        return self._sum_of(self._postfix(self.algebra.power(base, self._exponent())))

    def _exponent(self) -> Sum:
        self._enter()
        sign = number(self._signs("+", "-"))
        exponent = self._raised(self._primary())
        self._depth -= 1
        return self.algebra.multiply(sign, exponent)

    def _postfix(self, value: Value) -> Value:
        while self._next.kind == "symbol" and self._next.text in ("!", "%", "‰", "'"):
            sign = self._take().text
            if sign == "!":
                if self._next.text == "!":
                    # Double factorials are not supported.
                    self._fail()
                # Repeated factorials nest, so they count as depth.
                self._enter()
                value = self.algebra.call("factorial", self._sum_of(value))
            elif sign == "'" and variables(value):
                value = self.algebra.multiply(ONE, name(f"{value.text}'"))
            else:
                self.units.add(sign)
                value = self.algebra.multiply(self._sum_of(value), name(sign))
        return value

    # Primaries

    def _primary(self) -> Value:
        self._enter()
        value = self._unnested_primary()
        self._depth -= 1
        return value

    def _unnested_primary(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return self._mixed(parse_number(token.text))
        if token.kind == "name":
            text = token.text
            if text in self._indices:
                return self._indices[text]
            if self._next.kind == "sub":
                text += self._subscript()
                if (combinations := self._combinations(text)) is not None:
                    return combinations
            return self._applied(text + self._mark_of_function(text)) or name(text)
        if token.kind == "function":
            return self._function(token.text)
        if token.text in CLOSING:
            return self._brackets(token.text)
        if token.text == "|":
            self._bars += 1
            inner = self._sum_of(self._expression())
            self._bars -= 1
            self._expect("|")
            return self.algebra.call("abs", inner)
        if token.text in ("√", r"\sqrt"):
            return self._root()
        if token.text == "∅":
            return set_of(())
        if token.text in _CURRENCIES and self._next.kind == "number":
            self.units.add(UNITS[token.text])
            return self.algebra.multiply(parse_number(self._take().text), name(UNITS[token.text]))
        return self._command(token.text)

    def _mark_of_function(self, function: str) -> str:
        """Take the primes of f'(2), which is no product, or the -1 of f^{-1}(2), which is not 2/f."""
        if self._next.text not in ("'", "^"):
            return ""
        coming = " ".join(token.text for token in self._tokens[self._position : self._position + 6])
        inverse = _MINUS_FIRST.match(coming) if function in "fghFGH" else None
        mark = inverse or re.match(r"('(?: ')*) \(", coming)
        if mark is None:
            return ""
        self._go_to(self._position + mark[0].count(" "))
        return "^(-1)" if inverse else mark[1].replace(" ", "")

    def _subscript(self) -> str:
        """Take a subscript with its underscore, and replace an index, as the k in a_k, with its value."""
        text = self._take().text
        if text[1:] in self._indices:
            return f"_{self._indices[text[1:]].text}"
        if any(index in text for index in self._indices):
            self._fail()
        return text

    def _combinations(self, text: str) -> Sum | None:
        """Evaluate C_6^2 and A_6^2, the Chinese notation of combinations and permutations."""
        if not (text[:2] in ("C_", "A_", "P_") and text[2:].isdigit() and len(text) < 6 and self._next.text == "^"):
            return None
        position, n = self._position, int(text[2:])
        self._take()
        k = self._argument().rational if self._next.kind == "number" or self._next.text == "{" else None
        if k is None or k.denominator != 1 or not 0 <= k <= n:
            self._go_to(position)
            return None
        if text[0] == "C":
            return self.algebra.call("binomial", number(n), number(k))
        if n > MAX_FACTORIAL:
            self._fail()
        return number(math.perm(n, k.numerator))

    def _applied(self, function: str) -> Value | None:
        """Parse a function of a name or number, as f(x) and P(A), or a point with coordinates; None for a product.

        A letter before a longer expression in brackets is a factor, as in x(x+2) and h(a+b).
        """
        if self._next.text != "(" or self._next.spaced or not function[0].isascii():
            return None
        argument, closing = self._tokens[self._position + 1 : self._position + 3]
        is_short = closing.text == ")" and (
            (argument.kind == "name" and argument.text != function and (function.isupper() or argument.text in "xtn"))
            or (argument.kind == "number" and (function in _FUNCTION_NAMES or self._is_left_side_of_value()))
        )
        if is_short or function in ("f", "F") or function.endswith(("'", ")")):
            self._take()
            items = self._items()
            self._expect(")")
            if len(items) > 1 and function.endswith("'") and _POINT.fullmatch(function):
                return _named_point(function, items)
            return name(f"{function}({','.join(item.text for item in items)})")
        if _POINT.fullmatch(function):
            position = self._position
            self._take()
            items = self._items()
            if len(items) > 1 and self._takes(")"):
                return _named_point(function, items)
            self._go_to(position)
        return None

    def _is_left_side_of_value(self) -> bool:
        """Whether an answer starts as C(5) = 10 does, whose left side is no product."""
        return self._position == 1 and self._tokens[self._position + 3].text == "="

    def _argument(self) -> Sum:
        """Parse the argument of a LaTeX command: braces, or one token."""
        if self._next.kind == "number":
            return parse_number(self._first_digit())
        return self._sum_of(self._primary())

    def _brackets(self, opening: str) -> Value:
        if opening == r"\{" and self._takes(r"\}"):
            return set_of(())
        bars, self._bars = self._bars, 0
        items = self._items()
        self._bars = bars
        closing = self._expect(*CLOSING[opening])
        if opening == r"\{" or (opening == "{" and len(items) > 1):
            return set_of(map(assigned_value, items))
        if len(items) == 1 and opening + closing in ("()", "[]", "{}"):
            return items[0]
        if len(items) == 1:
            self._fail()
        if len(items) > 2 and opening + closing == "[]":
            # With three or more items, square brackets are no interval.
            opening, closing = "()"
        if opening + closing == "()" and [item.text for item in items] == ["-∞", "∞"]:
            # The real numbers are R, because normalization turns blackboard letters into plain ones.
            return name("R")
        return brackets(map(assigned_value, items), opening, closing)


def _named_point(label: str, coordinates: list[Value]) -> Form:
    point = brackets(map(assigned_value, coordinates))
    return Form(f"{label}={point.text}", "assignment", (name(label), point))


def _has_vector(factor: Sum) -> bool:
    return any(name.startswith(VECTOR) for name in variables(factor))


def assigned_value(item: Value) -> Value:
    """Return the value of an assignment such as x = 5, and other items as they are."""
    return item.parts[1] if isinstance(item, Form) and item.kind == "assignment" else item
