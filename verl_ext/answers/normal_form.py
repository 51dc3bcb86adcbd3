"""Normal forms of expressions: expressions with the same normal form are equal.

An expression is a sum of terms. A term is a rational coefficient times powers of atoms with rational exponents. Atoms
are numbers under a root, names (variables, constants, units), function calls, sums under a power, and symbolic powers.
Normal forms decide equality of fractions, surds, multiples of pi and polynomials. A numeric test
(`verl_ext.answers.numeric_equality`) decides it for other expressions, such as trigonometric identities.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import gcd, isqrt, lcm
from typing import Literal, NamedTuple, Union

# Largest prime factor searched for in numbers under a root.
MAX_PRIME = 1000

# Integers stay ints, which are much faster than Fractions.
Rational = Union[int, Fraction]  # noqa: UP007

IMAGINARY = "i"
# Positive constants, which can be taken out of a root.
POSITIVE_NAMES = ("π", "e")


class Atom(NamedTuple):
    """A base in a term. Atoms are equal if their texts are. `parts` depend on the kind:

    number: the int.
    name: empty.
    call: the arguments, each a `Sum`.
    sum: one `Sum`.
    power: the base, an `Atom`, and the monomial of the exponent, whose coefficient is this atom's exponent in the term.
    """

    text: str
    kind: Literal["number", "name", "call", "sum", "power"]
    parts: tuple["Part", ...] = ()


Monomial = tuple[tuple[Atom, Rational], ...]  # sorted by atom, without zero exponents
Part = Union[int, "Sum", Atom, Monomial]


def _power_text(text: str, exponent: Rational) -> str:
    if exponent == 1:
        return text
    return f"{text}^{exponent}" if exponent.denominator == 1 and exponent > 0 else f"{text}^({exponent})"


@dataclass(frozen=True, eq=False)
class Sum:
    """An expression in normal form: (monomial, coefficient) pairs sorted by monomial, without zero coefficients."""

    terms: tuple[tuple[Monomial, Rational], ...]

    @cached_property
    def text(self) -> str:
        """The normal form as readable text. Sums are equal if and only if their texts are."""
        if not self.terms:
            return "0"
        parts = []
        for monomial, coefficient in self.terms:
            factors = [_power_text(atom.text, exponent) for atom, exponent in monomial]
            if not factors or coefficient not in (1, -1):
                factors.insert(0, str(abs(coefficient)))
            parts.append(("-" if coefficient < 0 else "+") + "*".join(factors))
        return "".join(parts).removeprefix("+")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def rational(self) -> Rational | None:
        """The value if it is a rational number, else None."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None

    @property
    def atoms(self) -> frozenset[Atom]:
        """The atoms of all terms, without atoms nested in other atoms."""
        return frozenset(atom for monomial, _ in self.terms for atom, _ in monomial)

    @property
    def content(self) -> Fraction:
        """The positive number whose division leaves coprime integer coefficients."""
        coefficients = [coefficient for _, coefficient in self.terms]
        return Fraction(gcd(*(c.numerator for c in coefficients)), lcm(*(c.denominator for c in coefficients)))

    @cached_property
    def is_canonical(self) -> bool:
        """Whether the normal form decides equality: canonical expressions are equal only if their texts are."""
        return all(
            (atom.kind == "name" and exponent.denominator == 1) or (_is_prime(atom) and 0 < exponent < 1)
            for monomial, _ in self.terms
            for atom, exponent in monomial
        )


# Cached because answers repeat numbers and names; sums are immutable.
@lru_cache(maxsize=4096)
def number(value: Rational) -> Sum:
    """Return a rational number as an expression."""
    return Sum((((), value.numerator if value.denominator == 1 else value),)) if value else Sum(())


@lru_cache(maxsize=4096)
def name(text: str) -> Sum:
    """Return a variable, constant or unit as an expression."""
    return atom_power(Atom(text, "name"))


ONE, MINUS_ONE = number(1), number(-1)


def _is_prime(atom: Atom) -> bool:
    (base,) = atom.parts if atom.kind == "number" else (None,)
    return isinstance(base, int) and base < MAX_PRIME**2


def collect(terms: Iterable[tuple[Monomial, Rational]]) -> Sum:
    """Add up terms whose monomials may repeat."""
    collected: dict[Monomial, Rational] = {}
    for monomial, coefficient in terms:
        collected[monomial] = collected[monomial] + coefficient if monomial in collected else coefficient
    return Sum(tuple(sorted((m, c) for m, c in collected.items() if c)))


def atom_power(atom: Atom, exponent: Rational = 1) -> Sum:
    """Return a power of an atom as an expression."""
    return Sum(((((atom, exponent),), 1),))


@lru_cache(maxsize=4096)
def prime_factors(value: int) -> tuple[tuple[int, int], ...]:
    """Factor a positive integer into (prime, exponent) pairs.

    A remaining cofactor without prime factors below `MAX_PRIME` counts as a prime. If it is a perfect square, it counts
    as its root with twice the exponent, which simplifies square roots of large squares.
    """
    factors = []
    for prime in _PRIMES:
        exponent = 0
        while value % prime == 0:
            value //= prime
            exponent += 1
        if exponent:
            factors.append((prime, exponent))
        if value == 1:
            return tuple(factors)
    exponent = 1
    while isqrt(value) ** 2 == value:
        value, exponent = isqrt(value), exponent * 2
    return (*factors, (value, exponent))


def prime_powers(value: Rational) -> Iterator[tuple[int, int]]:
    """Factor a positive rational number into (prime, exponent) pairs."""
    yield from prime_factors(value.numerator)
    yield from ((prime, -exponent) for prime, exponent in prime_factors(value.denominator))


_PRIMES = [n for n in range(2, MAX_PRIME) if all(n % d for d in range(2, isqrt(n) + 1))]
