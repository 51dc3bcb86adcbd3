r"""Synthetic groups of answers in the spellings that models use, for `votes.py`.

Each group answers one question like those of MM-UPT's data. 3 % of the responses have no box; the others are correct
with the probability of their question, 0.2 to 0.9, and else give one of a few wrong answers. The first wrong answers
and the first spellings are the most frequent ones. Which answers are equal and which are correct is known by
construction, without a grader.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class SpelledQuestion:
    """Answers to a question and the texts of its options.

    Each answer is a list of spellings, most frequent first; the correct answer comes first.
    """

    answers: list[list[str]]
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class AnswerGroup:
    """Answers to one question and their labels, both None for a response without a box; label 0 is correct."""

    answers: list[str | None]
    labels: list[int | None]
    choices: tuple[str, ...] | None


def fraction(value: Fraction) -> list[str]:
    """Spell a fraction."""
    sign, a, b = "-" if value < 0 else "", abs(value.numerator), value.denominator
    if b == 1:
        return [f"{sign}{a}", f"{sign}{a}.0", rf"\frac{{{sign}{2 * a}}}{{2}}"]
    spellings = [rf"{sign}\frac{{{a}}}{{{b}}}", rf"{sign}\dfrac{{{a}}}{{{b}}}", f"{sign}{a}/{b}"]
    if 10_000 % b == 0:
        spellings.insert(1, f"{float(value)}")
    return [*spellings, rf"\frac{{{sign}{a}}}{{{b}}}", rf"{sign}\frac{{{3 * a}}}{{{3 * b}}}"]


@dataclass(frozen=True)
class Kind:
    """A kind of question with two integers: bounds of a, which wrong answers change, and of b; spellings of answers."""

    a: tuple[int, int]
    b: tuple[int, int]
    spell: Callable[[int, int], list[str]]

    def draw(self, rng: random.Random) -> SpelledQuestion:
        """Draw a question; its answers differ in a."""
        a, b = rng.randint(*self.a), rng.randint(*self.b)
        wrong = dict.fromkeys((a + 1, 2 * a, a + 10, 3 * a + 2, a + 5))
        return SpelledQuestion([self.spell(value, b) for value in (a, *wrong)])


KINDS = {
    "integer": Kind((3, 999), (0, 0), lambda a, b: [f"{a}", f"x = {a}", f"${a}$", f"{a}.0", rf"\text{{{a}}}"]),
    "large integer": Kind(
        (1001, 99999), (0, 0), lambda a, b: [f"{a}", f"{a:,}", f"{a:,}".replace(",", "{,}"), f"{a}.0"]
    ),
    "negative integer": Kind((1, 99), (0, 0), lambda a, b: [f"-{a}", f"x = -{a}", f"−{a}", f"-{a}.0"]),
    "decimal": Kind(
        (11, 999), (0, 0), lambda a, b: [f"{a / 10}", f"{a / 10:.2f}", f"x = {a / 10}", rf"\frac{{{a}}}{{10}}"]
    ),
    "fraction": Kind((1, 40), (3, 25), lambda a, b: fraction(Fraction(a, b))),
    "negative fraction": Kind((1, 40), (2, 12), lambda a, b: fraction(Fraction(-a, b))),
    "mixed number": Kind(
        (2, 40),
        (2, 9),
        lambda a, b: [rf"{a}\frac{{1}}{{{b}}}", rf"\frac{{{a * b + 1}}}{{{b}}}", f"{a} 1/{b}", f"{a * b + 1}/{b}"],
    ),
    "surd": Kind(
        (2, 60),
        (5, 7),
        lambda a, b: [
            rf"{a}\sqrt{{{b}}}", f"{a}√{b}", rf"{a} \sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a} \cdot \sqrt{b}",
        ],
    ),
    "surd in a fraction": Kind(
        (2, 60),
        (2, 3),
        lambda a, b: [
            rf"\frac{{\sqrt{{{b}}}}}{{{a}}}", rf"\dfrac{{\sqrt{{{b}}}}}{{{a}}}", rf"\sqrt{{{b}}}/{a}",
            rf"\frac{{{b}}}{{{a}\sqrt{{{b}}}}}", rf"\frac{{1}}{{{a}}}\sqrt{{{b}}}",
        ],
    ),
    "multiple of pi": Kind((2, 300), (0, 0), lambda a, b: [rf"{a}\pi", f"{a}π", rf"{a} \pi", rf"{a} \cdot \pi"]),
    "part of pi": Kind(
        (1, 60),
        (7, 13),
        lambda a, b: [rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{a}}}{{{b}}}\pi", rf"\dfrac{{{a}\pi}}{{{b}}}", f"{a}π/{b}"],
    ),
    "degrees": Kind(
        (5, 175),
        (1, 3),
        lambda a, b: [
            rf"{a}^\circ", f"{a}", rf"{a}^{{\circ}}", f"{a}°", rf"\angle {b} = {a}^\circ", rf"{a} \text{{ degrees}}",
        ],
    ),
    "length": Kind(
        (2, 400),
        (0, 0),
        lambda a, b: [
            f"{a}", rf"{a}\text{{ cm}}", f"{a} cm", rf"AB = {a}", rf"{a}\ \mathrm{{cm}}", rf"{a} \text{{ centimeters}}",
        ],
    ),
    "area": Kind(
        (3, 900),
        (0, 0),
        lambda a, b: [
            f"{a / 2:g}", rf"{a / 2:g}\text{{ cm}}^2", f"{a / 2:g} cm²", rf"{a / 2:g} \text{{ cm}}^{{2}}",
            f"{a / 2:g} square centimeters",
        ],
    ),
    "money": Kind((2, 900), (0, 0), lambda a, b: [f"{a}", rf"\${a}", f"${a}", rf"\${a}.00", rf"{a} \text{{ dollars}}"]),
    "time": Kind((2, 200), (0, 0), lambda a, b: [f"{a}", rf"{a} \text{{ minutes}}", f"{a} minutes", f"{a} min"]),
    "percentage": Kind(
        (3, 190),
        (0, 0),
        lambda a, b: [rf"{a / 2:g}\%", f"{a / 2:g}%", f"{a / 2:g}", rf"{a / 2:g} \text{{ percent}}"],
    ),
    "line": Kind(
        (2, 20), (1, 40), lambda a, b: [f"y = {a}x + {b}", f"y={a}x+{b}", f"y = {b} + {a}x", f"{a}x - y + {b} = 0"]
    ),
    "polynomial": Kind(
        (1, 20),
        (1, 20),
        lambda a, b: [
            f"x^2 + {a + b}x + {a * b}", f"(x+{a})(x+{b})", f"x^{{2}}+{a + b}x+{a * b}", f"(x + {b})(x + {a})",
        ],
    ),
    "trigonometry": Kind(
        (1, 60),
        (0, 0),
        lambda a, b: [rf"{a}\sin 2x", rf"{a}\sin(2x)", rf"{2 * a}\sin x \cos x", rf"{2 * a} \cos x \sin x"],
    ),
    "coordinates": Kind(
        (1, 20),
        (-20, 20),
        lambda a, b: [f"({a}, {b})", f"({a},{b})", rf"\left({a}, {b}\right)", rf"({a},\ {b})", f"({a}.0, {b}.0)"],
    ),
    "solutions": Kind(
        (1, 40),
        (-40, -1),
        lambda a, b: [
            f"{a}, {b}", rf"x = {a} \text{{ or }} x = {b}", f"{b}, {a}", rf"\{{{b}, {a}\}}", f"x={a}, x={b}",
        ],
    ),
    "interval": Kind(
        (1, 60),
        (-60, 0),
        lambda a, b: [f"[{b}, {a})", rf"\left[{b}, {a}\right)", f"[{b},{a})", rf"x \in [{b},{a})"],
    ),
    "inequality": Kind((1, 60), (0, 0), lambda a, b: [rf"x \geq {a}", f"x ≥ {a}", rf"x \ge {a}", rf"{a} \leq x"]),
    "value of a name": Kind((2, 400), (0, 0), lambda a, b: [f"k = {a}", f"{a}", f"k={a}", f"k = {a}.0"]),
    "ratio": Kind((2, 60), (61, 67), lambda a, b: [f"{a}:{b}", f"{a} : {b}", rf"{a}\colon {b}"]),
    "power of ten": Kind(
        (11, 99),
        (3, 8),
        lambda a, b: [
            rf"{a / 10} \times 10^{b}", rf"{a / 10} \times 10^{{{b}}}", f"{a * 10 ** (b - 1)}",
            rf"{a / 10} \cdot 10^{{{b}}}",
        ],
    ),
    "logarithm": Kind(
        (5, 99),
        (2, 3),
        lambda a, b: [
            rf"\log_{b} {a}", rf"\log_{{{b}}}{{{a}}}", rf"\log_{{{b}}}({a})", rf"\frac{{\ln {a}}}{{\ln {b}}}",
        ],
    ),
}  # fmt: skip


def draw_choice(rng: random.Random) -> SpelledQuestion:
    """Draw a question with four options (lengths, surds or words), answered by letter, text or both."""
    n, step = rng.randint(2, 90), rng.randint(1, 9)
    shapes = ["circle", "square", "triangle", "hexagon", "rhombus", "kite", "trapezoid"]
    choices = rng.choice(
        [
            [f"{n + step * i} cm" for i in range(4)],
            [rf"{n}\sqrt{{2}}", rf"{n}\sqrt{{3}}", f"{n}", f"{2 * n}"],
            rng.sample(shapes, 4),
        ]
    )
    answers = [
        [letter, rf"\text{{{letter}}}", f"{letter}. {text}", text, f"({letter})", rf"\text{{({letter}) {text}}}"]
        for letter, text in zip("ABCD", choices, strict=True)
    ]
    rng.shuffle(answers)
    return SpelledQuestion(answers, tuple(choices))


def draw_word(rng: random.Random) -> SpelledQuestion:
    """Draw a question answered by yes or no, or by a day of the week."""
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    answers = rng.choice([rng.sample(["Yes", "No"], 2), rng.sample(days, 5)])
    return SpelledQuestion([[word, rf"\text{{{word}}}", word.lower(), f"{word}."] for word in answers])


# Options, plain numbers, lengths and angles are most of the paper's data.
DRAWS: Sequence[Callable[[random.Random], SpelledQuestion]] = [
    *(kind.draw for kind in KINDS.values()),
    *(KINDS[name].draw for name in ("integer", "integer", "decimal", "degrees", "degrees", "length", "length", "area")),
    *[draw_choice] * 8,
    *[draw_word] * 2,
]


def skewed(rng: random.Random, number: int, spread: float) -> int:
    """Draw an integer below `number`; each is `spread` times as likely as its predecessor."""
    return rng.choices(range(number), [spread**position for position in range(number)])[0]


def draw_groups(prompts: int, responses: int, seed: int) -> list[AnswerGroup]:
    """Draw groups of answers, each to a different question."""
    rng = random.Random(seed)
    return [draw_group(rng.choice(DRAWS)(rng), responses, rng) for _ in range(prompts)]


def draw_group(question: SpelledQuestion, responses: int, rng: random.Random) -> AnswerGroup:
    """Draw the answers to one question."""
    probability, spread = rng.uniform(0.2, 0.9), rng.uniform(0.1, 0.6)

    labels: list[int | None] = []
    answers: list[str | None] = []
    for _ in range(responses):
        if rng.random() < 0.03:
            labels.append(None)
            answers.append(None)
            continue
        right = rng.random() < probability
        label = 0 if right else 1 + skewed(rng, len(question.answers) - 1, 0.6)
        labels.append(label)
        answers.append(question.answers[label][skewed(rng, len(question.answers[label]), spread)])
    return AnswerGroup(answers, labels, question.choices)
