"""Base of the parser: a position in a list of tokens, and the numbers read there."""

import re
from fractions import Fraction
from typing import NoReturn

from verl_ext.answers.algebra import Algebra
from verl_ext.answers.normal_form import Sum, number
from verl_ext.answers.tokens import NotMath, Token

MAX_DEPTH = 30
MAX_DIGITS = 400
MAX_DECIMAL_EXPONENT = 300


class TokenReader:
    """Takes tokens one by one and limits the depth of nesting."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = list(tokens)
        self._go_to(0)
        self._depth = 0
        self.algebra = Algebra()

    def _go_to(self, position: int) -> None:
        self._position = position
        self._next = self._tokens[position]

    def _take(self) -> Token:
        token = self._next
        self._go_to(self._position + 1)
        return token

    def _takes(self, *texts: str) -> bool:
        is_next = self._next.text in texts
        if is_next:
            self._take()
        return is_next

    def _expect(self, *texts: str) -> str:
        if self._next.text not in texts:
            self._fail()
        return self._take().text

    def _fail(self) -> NoReturn:
        raise NotMath(f"{self._next.text!r} at token {self._position}")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotMath("nested too deeply")

    def _mixed(self, whole: Sum) -> Sum:
        r"""Add the fraction of a mixed number, as in `3 1/2` and `3\frac{1}{2}`; no other number can follow one."""
        if self._next.text == r"\frac" and _is_natural(whole):
            position = self._position
            self._take()
            fraction = self._plain_fraction()
            if fraction is not None:
                return self.algebra.add(whole, number(fraction))
            self._go_to(position)
        if self._next.kind == "number":
            above, slash, below = self._tokens[self._position : self._position + 3]
            if not (_is_natural(whole) and slash.text == "/" and above.text.isdigit() and below.text.isdigit()):
                self._fail()
            self._go_to(self._position + 3)
            if not 0 <= int(above.text) < int(below.text):
                self._fail()
            return self.algebra.add(whole, number(Fraction(int(above.text), int(below.text))))
        return whole

    def _plain_fraction(self) -> Fraction | None:
        """Parse a proper fraction of two integers; None if none follows."""
        values = []
        for _ in range(2):
            braced = self._takes("{")
            if self._next.kind != "number" or not self._next.text.isdigit():
                return None
            text = self._next.text
            if braced:
                self._take()
                if not self._takes("}"):
                    return None
            else:
                text = self._first_digit()
            values.append(int(text))
        above, below = values
        return Fraction(above, below) if above < below else None

    def _first_digit(self) -> str:
        """Take one digit, as LaTeX does for an argument without braces."""
        token = self._take()
        if len(token.text) > 1 and token.text.isdigit():
            self._go_to(self._position - 1)
            self._tokens[self._position] = self._next = token._replace(text=token.text[1:], spaced=False)
        return token.text[0] if token.text.isdigit() else token.text


def _is_natural(value: Sum) -> bool:
    rational = value.rational
    return rational is not None and rational.denominator == 1 and rational >= 0


def parse_number(text: str) -> Sum:
    if len(text) < 16 and text.isdecimal():
        return number(int(text))
    if "overline" in text:
        before, repeated = re.findall(r"[\d.]+", text)
        whole, _, decimals = before.partition(".")
        scale = 10 ** len(decimals)
        tail = Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
        return number(Fraction(int(whole + decimals or "0"), scale) + tail)
    digits, _, exponent = text.lower().partition("e")
    if len(digits) > MAX_DIGITS or (exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_DECIMAL_EXPONENT)):
        raise NotMath("too many digits")
    return number(Fraction(text))
