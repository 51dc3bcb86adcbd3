r"""Cost of finding the equal answers of a step, and whom the groups elect: our rule against graders of the field.

    .venv/bin/python benchmarks/votes.py [--prompts 512] [--responses 16] [--seed 0]

Groups are made up: each is drawn from a question of its own, of a kind, and in spellings, as models give them to
questions like those of MM-UPT's data. A response is right with the probability of its question, 0.2 to 0.9, has no box
in 3 of 100, and is else one of a few wrong answers, the first of them the most frequent; so are the first spellings,
more or less by question. Which answers are the same and which are right is known from the drawing, not from a grader.

Ours is `classify`. The others cluster greedily, as EMPO does: an answer is compared with the first one of each cluster,
in the order of the responses, in this process and without a limit; Math-Verify parses every answer once. The vote on
top costs nothing beside it. Every measurement is a process of its own, where no answer has been read; imports, the
start of the process that compares and the drawing are not counted. Figures are CPU seconds, those of child processes
included: of ours medians of five, of the others one run, of Math-Verify one over the first 64 groups. Six minutes.
"""

import argparse
import multiprocessing
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import psutil
from math_verify import parse, verify
from mathruler.grader import grade_answer

import verl_ext.answers.with_math_verify  # noqa: F401  (loads its grammar, silences its warnings)
from verl_ext.answers import Comparison, classify, prepare

REPEATS = 5
MATH_VERIFY_GROUPS = 64
# A measurement that takes longer hangs.
SECONDS_AT_MOST = 1800

Classes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Question:
    """Its answers, the true one first, each by its spellings, the most frequent first; the texts of its options."""

    answers: list[list[str]]
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Group:
    """Answers to one question, None for those without a box; of each the number of the answer, 0 for the true one."""

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
    """Questions about whole numbers within bounds: a, which wrong answers change, and b; how answers are spelled."""

    a: tuple[int, int]
    b: tuple[int, int]
    spell: Callable[[int, int], list[str]]

    def draw(self, rng: random.Random) -> Question:
        """Return a question, different answers by different a."""
        a, b = rng.randint(*self.a), rng.randint(*self.b)
        wrong = dict.fromkeys((a + 1, 2 * a, a + 10, 3 * a + 2, a + 5))
        return Question([self.spell(value, b) for value in (a, *wrong)])


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


def draw_choice(rng: random.Random) -> Question:
    """Four options, lengths, surds or words; answered by the letter, the text or both."""
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
    return Question(answers, tuple(choices))


def draw_word(rng: random.Random) -> Question:
    """Yes or no, or a day of the week."""
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    answers = rng.choice([rng.sample(["Yes", "No"], 2), rng.sample(days, 5)])
    return Question([[word, rf"\text{{{word}}}", word.lower(), f"{word}."] for word in answers])


# Choices and plain numbers, lengths and angles are most of the paper's data.
DRAWS: Sequence[Callable[[random.Random], Question]] = [
    *(kind.draw for kind in KINDS.values()),
    *(KINDS[name].draw for name in ("integer", "integer", "decimal", "degrees", "degrees", "length", "length", "area")),
    *[draw_choice] * 8,
    *[draw_word] * 2,
]


def skewed(rng: random.Random, number: int, spread: float) -> int:
    """Draw one of the first whole numbers, each `spread` times as often as the one before it."""
    return rng.choices(range(number), [spread**position for position in range(number)])[0]


def draw_groups(prompts: int, responses: int, seed: int) -> list[Group]:
    """Draw groups of answers, each to a question of its own."""
    rng = random.Random(seed)
    return [draw_group(rng.choice(DRAWS)(rng), responses, rng) for _ in range(prompts)]


def draw_group(question: Question, responses: int, rng: random.Random) -> Group:
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
    return Group(answers, labels, question.choices)


# Ways to find the equal answers of a group


def ours(group: Group) -> Classes:
    """The classes of `classify`."""
    return classify(group.answers, choices=group.choices).members


def by_string(group: Group) -> Classes:
    """As TTRL and the paper's code count."""
    members = defaultdict(list)
    for position, answer in enumerate(group.answers):
        if answer is not None:
            members[answer].append(position)
    return list(members.values())


def greedily(answers: Sequence[str | None], same: Callable[[int, int], bool]) -> Classes:
    """Put every answer to the first cluster whose first answer it equals."""
    clusters: list[list[int]] = []
    for position, answer in enumerate(answers):
        if answer is not None:
            cluster = next((cluster for cluster in clusters if same(position, cluster[0])), None)
            if cluster is None:
                clusters.append([position])
            else:
                cluster.append(position)
    return clusters


def by_mathruler(group: Group) -> Classes:
    """Greedy clusters by the grader of the paper's code."""
    answers = group.answers
    return greedily(answers, lambda a, b: grade_answer(answers[a], answers[b]))


def by_math_verify(group: Group) -> Classes:
    """Greedy clusters by Math-Verify."""
    parsed = [answer and parse(rf"\boxed{{{answer}}}", parsing_timeout=None) for answer in group.answers]
    return greedily(group.answers, lambda a, b: verify(parsed[b], parsed[a], timeout_seconds=None))


def by_construction(group: Group) -> Classes:
    """What an omniscient grader finds."""
    members = defaultdict(list)
    for position, label in enumerate(group.labels):
        if label is not None:
            members[label].append(position)
    return list(members.values())


# Cost


def cpu_seconds() -> float:
    """CPU time of this process and of all that it started, those that ended included."""
    # A child that ended a moment ago has to be reaped to be counted.
    time.sleep(0.1)
    children = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(
        times.user + times.system + times.children_user + times.children_system for times in children
    )


def timed(task: tuple[Callable[[Group], Classes], list[Group]]) -> tuple[float, list[Classes]]:
    """Return the CPU seconds for some groups, and their classes; runs in a process of its own."""
    find, groups = task
    if find is ours:
        prepare(Comparison())
    start = cpu_seconds()
    classes = [find(group) for group in groups]
    return cpu_seconds() - start, classes


def measure(find: Callable[[Group], Classes], groups: list[Group], repeats: int = 1) -> tuple[float, list[Classes]]:
    """Return the median of the CPU seconds of several measurements, and the classes of the last."""
    seconds: list[float] = []
    classes: list[Classes] = []
    for _ in range(repeats):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            one, classes = pool.apply_async(timed, [(find, groups)]).get(SECONDS_AT_MOST)
        seconds.append(one)
    return statistics.median(seconds), classes


# Whom the groups elect


def elected(group: Group, classes: Classes) -> tuple[int | None, Sequence[int]]:
    """The answer that most of the largest class gave, and that class; a tie or a lone answer elects nobody."""
    ranked = sorted(classes, key=len, reverse=True)
    if sum(map(len, ranked)) < 2 or (len(ranked) > 1 and len(ranked[0]) == len(ranked[1])):
        return None, ()
    labels = [group.labels[position] for position in ranked[0]]
    return max(labels, key=labels.count), ranked[0]


def outcomes(groups: Sequence[Group], found: Sequence[Classes]) -> list[object]:
    """How many groups elect the truth, another answer, nobody; how many responses are rewarded as the truth would."""
    votes = [elected(group, classes) for group, classes in zip(groups, found, strict=True)]
    winners = [label for label, _ in votes]
    rewarded = sum(
        (position in members) == (label == 0)
        for group, (_, members) in zip(groups, votes, strict=True)
        for position, label in enumerate(group.labels)
    )
    responses = sum(len(group.labels) for group in groups)
    right, nobody = winners.count(0), winners.count(None)
    mixed = sum(
        len({group.labels[one] for one in members}) > 1 for group, (_, members) in zip(groups, votes, strict=True)
    )
    return [right, len(winners) - right - nobody, nobody, mixed, f"{rewarded / responses:.1%}"]


def differences(groups: Sequence[Group], first: Sequence[Classes], second: Sequence[Classes]) -> list[object]:
    """In how many groups two ways elect differently, and in how many of these each of them elects the truth."""
    pairs = [
        (elected(group, one)[0], elected(group, other)[0])
        for group, one, other in zip(groups, first, second, strict=True)
    ]
    differing = [(one, other) for one, other in pairs if one != other]
    right, other_right = (sum(pair[side] == 0 for pair in differing) for side in (0, 1))
    return [
        f"{len(differing)} ({len(differing) / len(groups):.1%})",
        right,
        other_right,
        len(differing) - right - other_right,
    ]


# Report


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def describe(groups: Sequence[Group]) -> None:
    """Print how much the answers repeat."""
    given = [answer for group in groups for answer in group.answers if answer is not None]
    in_group = statistics.mean(len(set(group.answers) - {None}) for group in groups)
    print(
        f"{len(groups)} groups of {len(groups[0].answers)}: {len(given)} answers, {len(set(given))} distinct texts in "
        f"all, {in_group:.1f} in a group\n"
    )


def compare(groups: list[Group]) -> None:
    """Print costs, then elections."""
    few = groups[:MATH_VERIFY_GROUPS]
    print("## Cost\n")
    describe(groups)
    seconds, found = {}, {}
    for name, find, some, repeats in (
        ("ours", ours, groups, REPEATS),
        ("greedy mathruler", by_mathruler, groups, 1),
        ("greedy Math-Verify", by_math_verify, few, 1),
    ):
        one, found[name] = measure(find, some, repeats)
        seconds[name] = one * len(groups) / len(some)
    print_table(
        ["", "CPU s a step", "CPU ms a group", "ratio"],
        [
            [name, f"{one:.2f}", f"{1000 * one / len(groups):.2f}", f"{one / seconds['ours']:.0f}"]
            for name, one in seconds.items()
        ],
    )
    print("## Whom the groups elect\n")
    found |= {"string": [by_string(group) for group in groups], "construction": [by_construction(g) for g in groups]}
    names = ["string", "greedy mathruler", "ours", "construction"]
    header = ["classes by", "true", "other", "nobody", "of mixed answers", "responses rewarded as by the truth"]
    print_table(header, [[name, *outcomes(groups, found[name])] for name in names])
    print_table(
        ["two ways", "groups where they differ", "first right", "second right", "neither"],
        [
            [f"ours, {name}", *differences(groups, found["ours"], found[name])]
            for name in ("string", "greedy mathruler", "construction")
        ],
    )


def scale(prompts: int, responses: int, seed: int) -> None:
    """Print how our cost grows with both sizes."""
    print("## Growth of our cost\n")
    rows = []
    for many, n in ((prompts, 8), (prompts, 16), (prompts, 32), (prompts, 64), (2048, responses), (8192, responses)):
        groups = draw_groups(many, n, seed)
        seconds, _ = measure(ours, groups, 3)
        rows.append([many, n, f"{seconds:.2f}", f"{1000 * seconds / many:.2f}", f"{1e6 * seconds / (many * n):.0f}"])
    print_table(["prompts", "n", "CPU s", "CPU ms a group", "CPU µs an answer"], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="Cost and outcome of the votes of a step.")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--responses", type=int, default=16, help="n")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    compare(draw_groups(arguments.prompts, arguments.responses, arguments.seed))
    scale(arguments.prompts, arguments.responses, arguments.seed)


if __name__ == "__main__":
    main()
