"""Exact arithmetic on normal forms.

Work is bounded for every input by a budget per expression and by limits on the size of numbers and powers.
"""

from fractions import Fraction
from math import ceil, comb, factorial, floor, gcd, lcm
from typing import Literal

from verl_ext.answers.normal_form import (
    IMAGINARY,
    MINUS_ONE,
    ONE,
    POSITIVE_NAMES,
    Atom,
    Monomial,
    Part,
    Rational,
    Sum,
    atom_power,
    collect,
    name,
    number,
    prime_powers,
)

# Powers, factorials and binomials beyond these limits are not evaluated.
MAX_BITS = 4096
MAX_EXPANDED_EXPONENT = 12
MAX_FACTORIAL = 100
MAX_BINOMIAL = 200
# Maximum number of multiplications of two terms per expression.
BUDGET = 1000


class TooLarge(ValueError):
    """The expression exceeded its work budget."""


class Undefined(ValueError):
    """The expression has no value, for example because it divides by zero."""


def _bits(value: Rational) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


class Algebra:
    """Arithmetic within the work budget of one expression.

    Raises:
        TooLarge: the budget is exceeded.
        Undefined: the result has no value.
    """

    def __init__(self) -> None:
        self._budget = BUDGET

    def spend(self, work: int) -> None:
        """Charge work to the budget; TooLarge if that exceeds it."""
        self._budget -= work
        if self._budget < 0:
            raise TooLarge

    def _atom(self, text: str, kind: Literal["call", "sum", "power"], parts: tuple[Part, ...]) -> Atom:
        # An expression's text contains the texts of its parts, repeatedly where powers were expanded.
        self.spend(len(text) // 64)
        return Atom(text, kind, parts)

    def add(self, *summands: Sum) -> Sum:
        """Return a + b + ..."""
        self.spend(sum(len(summand.terms) for summand in summands))
        return collect(term for summand in summands for term in summand.terms)

    def subtract(self, a: Sum, b: Sum) -> Sum:
        """Return a - b."""
        return self.add(a, self.multiply(MINUS_ONE, b))

    def multiply(self, a: Sum, b: Sum) -> Sum:
        """Return a * b, expanded."""
        if a is ONE or b is ONE:
            return b if a is ONE else a
        if len(a.terms) == len(b.terms) == 1:
            return Sum((self._multiply_terms(a.terms[0], b.terms[0]),))
        return collect(self._multiply_terms(first, second) for first in a.terms for second in b.terms)

    def divide(self, a: Sum, b: Sum) -> Sum:
        """Return a / b."""
        return self.multiply(a, self.power(b, MINUS_ONE))

    def _multiply_terms(self, a: tuple[Monomial, Rational], b: tuple[Monomial, Rational]) -> tuple[Monomial, Rational]:
        coefficient = a[1] * b[1]
        bits = _bits(coefficient)
        self.spend(1 + bits // 256)
        if bits > 2 * MAX_BITS:
            raise TooLarge
        if not a[0] or not b[0]:
            return a[0] or b[0], coefficient
        exponents = dict(a[0])
        for atom, exponent in b[0]:
            exponents[atom] = exponents[atom] + exponent if atom in exponents else exponent
        return self._normal_term(exponents, coefficient)

    def _normal_term(self, exponents: dict[Atom, Rational], coefficient: Rational) -> tuple[Monomial, Rational]:
        """Reduce exponents of numbers to between 0 and 1 and powers of i to i, unless numbers get too large."""
        monomial = []
        for atom, exponent in exponents.items():
            if atom.kind == "number" and (exponent >= 1 or exponent < 0):
                (base,) = atom.parts
                assert isinstance(base, int)
                whole = exponent.numerator // exponent.denominator
                if abs(whole) * base.bit_length() <= MAX_BITS:
                    coefficient *= Fraction(base) ** whole
                    exponent -= whole
            elif atom.text == IMAGINARY and exponent.denominator == 1:
                coefficient *= -1 if exponent % 4 in (2, 3) else 1
                exponent = exponent % 2
            if exponent:
                monomial.append((atom, exponent))
        return tuple(sorted(monomial)), coefficient

    def power(self, base: Sum, exponent: Sum) -> Sum:
        """Return base ^ exponent. Odd roots of negative numbers are real."""
        value = exponent.rational
        if value is not None:
            return self._rational_power(base, value)
        result = ONE
        for monomial, coefficient in exponent.terms:
            factor = (
                self._symbolic_power(base, monomial, coefficient)
                if monomial
                else self._rational_power(base, coefficient)
            )
            result = self.multiply(result, factor)
        return result

    def _rational_power(self, base: Sum, exponent: Rational) -> Sum:
        if not exponent:
            return ONE
        if not base.terms:
            if exponent < 0:
                raise Undefined
            return base
        if exponent == 1:
            return base
        if len(base.terms) == 1:
            return self._power_of_term(base.terms[0], exponent)
        if exponent.denominator == 1 and 0 < exponent <= MAX_EXPANDED_EXPONENT:
            result = base
            for _ in range(exponent.numerator - 1):
                result = self.multiply(result, base)
            return result
        if exponent == -1 and (inverse := self._rationalised(base)) is not None:
            return inverse
        return self._power_of_sum(base, exponent)

    def _rationalised(self, base: Sum) -> Sum | None:
        """Return 1 / (a + b) as (a - b) / (a^2 - b^2) for two numbers with rational squares, else None."""
        if len(base.terms) != 2 or any(atom.kind != "number" for atom in base.atoms):
            return None
        (first, a), (second, b) = base.terms
        conjugate = Sum(((first, a), (second, -b)))
        norm = self.multiply(base, conjugate).rational
        return self.multiply(conjugate, number(Fraction(1, norm))) if norm else None

    def _power_of_sum(self, base: Sum, exponent: Rational) -> Sum:
        """Return a power of a sum without expanding it: the power of its content, times an atom."""
        content = base.content
        common = self._common_factor(base) if exponent.denominator == 1 else {}
        if exponent.denominator == 1 and base.terms[0][1] < 0:
            content = -content
        outside: tuple[Monomial, Rational] = (tuple(sorted(common.items())), content)
        inverse = (tuple((atom, -power) for atom, power in outside[0]), 1 / content)
        inner = collect(self._multiply_terms(term, inverse) for term in base.terms)
        atom = self._atom(f"({inner.text})", "sum", (inner,))
        return self.multiply(self._power_of_term(outside, exponent), atom_power(atom, exponent))

    def _common_factor(self, base: Sum) -> dict[Atom, Rational]:
        """Return the lowest power of each atom, numbers excepted, that all terms share."""
        first, *others = [dict(monomial) for monomial, _ in base.terms]
        return {
            atom: lowest
            for atom in first
            if atom.kind != "number"
            and all(atom in other for other in others)
            and (lowest := min([first[atom], *(other[atom] for other in others)]))
        }

    def _power_of_term(self, term: tuple[Monomial, Rational], exponent: Rational) -> Sum:
        monomial, coefficient = term
        if exponent.denominator == 1:
            powers = {atom: old * exponent for atom, old in monomial}
            whole = exponent.numerator
            if abs(whole) * _bits(coefficient) <= MAX_BITS:
                power = coefficient**whole if whole > 0 else Fraction(coefficient) ** whole
                return Sum((self._checked(self._normal_term(powers, power)),))
            sign = -1 if coefficient < 0 and whole % 2 else 1
            return self.multiply(
                Sum((self._normal_term(powers, sign),)), self._root(abs(Fraction(coefficient)), exponent)
            )
        positive = {a: p * exponent for a, p in monomial if a.kind == "number" or a.text in POSITIVE_NAMES}
        remaining = tuple((a, p) for a, p in monomial if a not in positive)
        result = Sum((self._normal_term(positive, 1),))
        sign = -1 if coefficient < 0 else 1
        if sign < 0 and not remaining and exponent.denominator % 2:
            result = self.multiply(result, number((-1) ** (exponent.numerator % 2)))
            sign = 1
        elif sign < 0 and not remaining and exponent.denominator == 2:
            imaginary = self._normal_term({Atom(IMAGINARY, "name"): exponent.numerator}, 1)
            result = self.multiply(result, Sum((imaginary,)))
            sign = 1
        result = self.multiply(result, self._root(coefficient if coefficient > 0 else -coefficient, exponent))
        if sign == 1 and not remaining:
            return result
        if sign == 1 and len(remaining) == 1 and remaining[0][1] == 1:
            atom = remaining[0][0]
        else:
            under_the_root = Sum(((remaining, sign),))
            atom = self._atom(f"({under_the_root.text})", "sum", (under_the_root,))
        return self.multiply(result, atom_power(atom, exponent))

    def _checked(self, term: tuple[Monomial, Rational]) -> tuple[Monomial, Rational]:
        self.spend(1 + _bits(term[1]) // 256)
        return term

    def _root(self, value: Rational, exponent: Rational) -> Sum:
        """Return a positive rational number to any rational power."""
        if value == 1:
            return ONE
        self.spend(20)
        powers: dict[Atom, Rational] = {
            Atom(str(prime), "number", (prime,)): count * exponent for prime, count in prime_powers(value)
        }
        return Sum((self._checked(self._normal_term(powers, 1)),))

    def _symbolic_power(self, base: Sum, monomial: Monomial, coefficient: Rational) -> Sum:
        """Return base ^ (coefficient * monomial) for a monomial other than 1."""
        if base == ONE:
            return ONE
        if not base.terms:
            return base
        (inner, value), *others = base.terms
        # (x^2)^y is not x^(2y) for a negative x.
        splits = all(power == 1 or atom.kind == "number" or atom.text in POSITIVE_NAMES for atom, power in inner)
        parts: dict[Atom, Rational]
        if not others and value > 0 and splits:
            parts = dict(inner)
            if value != 1:
                self.spend(20)
            for prime, count in prime_powers(value):
                atom = Atom(str(prime), "number", (prime,))
                parts[atom] = parts.get(atom, 0) + count
        else:
            parts = {self._atom(f"({base.text})", "sum", (base,)): 1}
        exponent_text = Sum(((monomial, 1),)).text
        powers: dict[Atom, Rational] = {}
        for atom, exponent in parts.items():
            if exponent:
                power = self._atom(f"{{{atom.text}^({exponent_text})}}", "power", (atom, monomial))
                powers[power] = powers.get(power, 0) + exponent * coefficient
        return Sum((self._normal_term(powers, 1),))

    def call(self, function: str, *arguments: Sum) -> Sum:
        """Return a function call, evaluated if its value is rational or a sum of logarithms of primes."""
        values = [argument.rational for argument in arguments]
        value = values[0]
        if function == "ln" and value is not None:
            return self._logarithm(value)
        if function == "ln" and arguments[0] == name("e"):
            return ONE
        if function == "abs" and value is not None:
            return number(abs(value))
        if function in ("floor", "ceil") and value is not None:
            return number(floor(value) if function == "floor" else ceil(value))
        exact = [item for item in values if item is not None]
        if function in ("max", "min") and len(exact) == len(values):
            return number(max(exact) if function == "max" else min(exact))
        if function in ("gcd", "lcm") and len(exact) == len(values) and all(item.denominator == 1 for item in exact):
            return number((gcd if function == "gcd" else lcm)(*(item.numerator for item in exact)))
        if function == "factorial" and value is not None:
            if value < 0 or value.denominator != 1:
                raise Undefined
            if value <= MAX_FACTORIAL:
                return number(factorial(value.numerator))
        if function == "binomial" and value is not None and values[1] is not None:
            n, k = value, values[1]
            if n.denominator == k.denominator == 1 and 0 <= n <= MAX_BINOMIAL and k >= 0:
                return number(comb(n.numerator, k.numerator))
        text = f"{function}({','.join(argument.text for argument in arguments)})"
        return atom_power(self._atom(text, "call", arguments))

    def _logarithm(self, value: Rational) -> Sum:
        """Return the natural logarithm of a rational number as a sum over its primes."""
        if value <= 0:
            raise Undefined
        self.spend(20)
        return collect(
            (((Atom(f"ln({prime})", "call", (number(prime),)), 1),), count) for prime, count in prime_powers(value)
        )

    def substitute(self, expression: Sum, atom: Atom, value: Sum) -> Sum:
        """Replace an atom of the terms with a value."""
        if atom not in expression.atoms:
            return expression
        result = Sum(())
        for monomial, coefficient in expression.terms:
            rest = tuple((other, exponent) for other, exponent in monomial if other != atom)
            term = Sum(((rest, coefficient),))
            if (exponent := dict(monomial).get(atom)) is not None:
                term = self.multiply(term, self._rational_power(value, exponent))
            result = self.add(result, term)
        return result

    def primitive(self, expression: Sum, *, signed: bool) -> Sum:
        """Scale an expression to coprime integer coefficients; with `signed`, also to a positive first coefficient."""
        if not expression.terms:
            return expression
        content = expression.content
        if signed and expression.terms[0][1] < 0:
            content = -content
        return self.multiply(expression, number(1 / content))
