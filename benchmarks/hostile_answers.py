r"""Fuzz the answer rules: no answer may raise, hang or delay a vote.

    .venv/bin/python benchmarks/hostile_answers.py [--answers 100000] [--seed 0]

Draws answers that models write by accident or on purpose (random LaTeX, nested or repeated up to 100,000 characters,
any Unicode with surrogates and NULs, damaged hand-checked answers, answers on which other graders hang) and times three
calls per answer: `canonical` without a cache; `equivalent` with a damaged copy or the previous answer, and for every
hundredth with two expressions that only their values tell apart; and `extract_answer` from boxes. Then each rule votes
in groups of 16, half of which are such answers.

Calls of more than 0.3 s are listed with their CPU time, because a busy machine may suspend a process for that long. An
exception ends the run and names the answer. Takes five minutes.
"""

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from verl_ext.answers import AnswerRule, Comparison, canonical, classify, equivalent, extract_answer

HAND_CHECKED = Path(__file__).parent.parent / "tests" / "verl_ext" / "hand_checked"
LIMIT = 0.3

_split = str.split

FRAGMENTS = [
    *"0123456789xyzabeinABCD+-*/^_=<>(){}[]|,.;:!?%°'\"$&#~@\\ \n\t",
    *_split(r"""\frac \dfrac{ \sqrt \sqrt[ \sqrt{ \left( \right) \{ \} \text{ \mathrm{ \pi \infty \circ ^\circ ^{ _{
    \cdot \times \pm \mp \cup \cap \in \leq \ge \neq \sin \cos \tan^{-1} \log_ \ln \binom{ \lfloor \rfloor
    \begin{pmatrix}
    \end{pmatrix} \\ \overline{ \boxed{ \, \! \% \$ {,} 1,000 1e9 1e999 0.333 9**9 ** !! != <= := max( min( gcd( abs(
    exp( sqrt( pi inf nan None True cm km/h yes x= f(x)= ∠ABC △ √ π ∞ ½ ² ⁻¹ ₁ − × ÷ · ≤ ∈ ∪ ∅ … ， 。 百分之二十
    平方厘米 三 元 万 ٣ ５ ① Ⅳ"""),
    *("cm ", " m", " square meters", " and ", " or ", " per ", "Option B"),
    *("\u200b", "\x00", "\ud800", "\udfff", "\U0001f600", "e\u0301", "\u202e"),
]  # fmt: skip

KILLERS = [
    *_split(r"""9**9**9**9 9^{9^{9^{9}}} 99999999! (((9!)!)!)! (x+1)**5000 (x+1)^{5000}/(x-1)^{5000} x/3
    (a+b+c+d+f+g)^{12} ((((x+1)^{12}+1)^{12}+1)^{12}+1)^{12} 2^{10^{10}} 10^{-10^{10}} 1e999999999 0^0 0^{-1} 1/0
    \frac{0}{0} \infty-\infty
    (-8)^{1/3} (-1)^{x/2} i^i i^{10^{100}} -0
    __import__('os').system('true') ().__class__.__bases__[0].__subclasses__()
    \binom{10^{9}}{10^{8}} \binom{200}{100} \sin(10^{300}) \tan(\frac{\pi}{2}) \log(-1) \log_1{5} \ln(0) \sqrt[99]{-1}
    \sqrt[0]{5} ||x|-|y|| \pm1\pm2\mp3 a<b<c<d<e<f<g 1:2:3:4 1000000007*998244353"""),
    "exec('while True: pass')",
    "x" * 300,
    "1" * 5000,
    "123456789" * 30,
    str(2**4096 + 1),
    str((10**30 + 57) ** 2),
    rf"\sqrt{{{10**200 + 1}}}",
    "1" * 399 + "/" + "3" * 399,
    "0." + "0" * 300 + "1",
    r"0.1\overline{" + "3" * 390 + "}",
    "1,000" * 200,
    "--" * 200 + "5",
    "1/" * 150 + "1",
    "2" + "^2" * 150,
    "1" + "!" * 150,
    "|" * 200,
    r"\pm" * 50 + "1",
    "2^{1/3}" * 50,
    "19" + "**99" * 28,
    "e^{" * 20 + "x" + "}" * 20,
    "(" * 29 + "x" + ")" * 29,
    r"\frac{1}{1+" * 60 + "x" + "}" * 60,
    r"\sqrt{1+" * 60 + "x" + "}" * 60,
    "(" + "1," * 190 + "1)",
    ",".join(["x"] * 190),
    r"\max(a,b,c,d,f,g,h)",
    r"\begin{pmatrix}" + r"1&2\\" * 60 + r"\end{pmatrix}",
    "+".join(f"x^{{{n}}}" for n in range(60)),
    "*".join(f"(x+{n})" for n in range(40)),
    "+".join(rf"\sqrt{{{n}}}" for n in range(2, 90)),
    "*".join(rf"(1+\sqrt{{{n}}})" for n in range(2, 20)),
]

# Parts of well-formed expressions; each # of a template becomes an expression.
LEAVES = [*"xyei", r"\pi", "0.5", "3.25", "a_1"]
TEMPLATES = _split(r"""#+# #-# (#)(#) #\cdot# \frac{#}{#} (#)/(#) (#)^{#} \sqrt{#} \sqrt[3]{#} \sqrt[8]{#} \sin(#)
\cos(#) \tan(#) \ln(#) \log(#) \arcsin(#) |#| \log_{#}{#}
(#,#) [#,#) \{#,#\} #=# #\leq# #,# #\pm# (#)! \binom{#}{#} #\cup# #\text{cm}
#% #^\circ f(#)=# \lfloor#\rfloor #:#""")

# Pairs of equal or nearly equal expressions that only their values can tell apart.
NUMERIC = [
    (r"(\sin x+\cos x)^{{{0}}}", r"(1+\sin 2x)^{{{1}}}"),
    (r"(x+{0})^{{5000}}", r"(x^2+{1}x+{2})^{{2500}}"),
    (r"({0}00000)!", r"{0}00000\cdot({0}00000-1)!"),
    (r"\cos 1°\cos 2°\cos 3°\cos {0}°", r"\cos {0}°\cos 3°\cos 2°\sin 89°"),
    (r"\sqrt{{{0}+\sqrt{{2+\sqrt{{3+\sqrt{{5}}}}}}}}", r"\sqrt{{{0}+\sqrt{{2+\sqrt{{3+\sqrt{{5}}}}}}}}+10^{{-30}}"),
]  # fmt: skip


def numeric_pair(rng: random.Random) -> tuple[str, str]:
    """Draw a pair of `NUMERIC`, which is compared at many points."""
    a, b = rng.choice(NUMERIC)
    n = rng.randint(5, 30)
    numbers = (2 * n, n, n * n)
    return a.format(*numbers), b.format(*numbers)


def expression(rng: random.Random, depth: int) -> str:
    """Draw well-formed LaTeX, nested up to `depth` levels."""
    if depth == 0:
        return rng.choice([str(rng.randint(-20, 10 ** rng.randint(1, 20))), *LEAVES])
    template = rng.choice(TEMPLATES)
    return "".join(
        expression(rng, rng.randrange(depth)) if piece == "#" else piece for piece in re.split("(#)", template)
    )


def any_unicode(rng: random.Random) -> str:
    """Draw up to 60 characters of any plane, with lone surrogates and NULs."""
    limits = [0x80, 0x800, 0x10000, 0x110000]
    return "".join(chr(rng.randrange(rng.choice(limits))) for _ in range(rng.randint(0, 60)))


def damaged(answer: str, rng: random.Random) -> str:
    """Delete, double, reverse or insert pieces of an answer."""
    for _ in range(rng.randint(1, 3)):
        begin, end = sorted(rng.randrange(len(answer) + 1) for _ in range(2))
        piece = answer[begin:end]
        piece = rng.choice(["", piece * 2, piece[::-1], piece + rng.choice(FRAGMENTS), rng.choice(FRAGMENTS)])
        answer = answer[:begin] + piece + answer[end:]
    return answer


def repeated(rng: random.Random) -> str:
    """Draw a few fragments, repeated up to 100,000 characters, with or without closing brackets."""
    unit = "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 3)))
    times = rng.choice([2, 10, 31, 100, 400, 1_000] + [100_000 // len(unit)] * (rng.random() < 0.05))
    return rng.choice(["", "1", "x"]) + unit * times + rng.choice(["", "1", "}" * times, ")" * times])


def hostile_answers(number: int, seed: int) -> list[str]:
    """Draw answers of all kinds, `KILLERS` first."""
    rng = random.Random(seed)
    files = (HAND_CHECKED / "pairs.jsonl", HAND_CHECKED / "everyday.jsonl")
    rows = (json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())
    checked = [answer for row in rows for answer in (row["a"], row["b"])]
    kinds: list[Callable[[], str]] = [
        lambda: "".join(rng.choices(FRAGMENTS, k=rng.randint(1, 30))),
        lambda: expression(rng, rng.randint(1, 6)),
        lambda: damaged(expression(rng, rng.randint(1, 5)), rng),
        lambda: damaged(rng.choice(checked), rng),
        lambda: damaged(rng.choice(checked) + rng.choice(checked), rng),
        lambda: damaged(rng.choice(KILLERS), rng),
        lambda: repeated(rng),
        lambda: any_unicode(rng),
    ]
    return [*KILLERS, *(rng.choice(kinds)() for _ in range(number - len(KILLERS)))][:number]


class Call(NamedTuple):
    """Wall-clock and CPU seconds of a call, and its arguments."""

    wall: float
    cpu: float
    arguments: tuple[str, ...]


def timed(function: Callable[..., object], *arguments: str) -> Call:
    """Time a call; a RuntimeError with the arguments replaces any exception."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        function(*arguments)
    except Exception as error:
        raise RuntimeError(f"{function.__name__}{tuple(ascii(argument)[:300] for argument in arguments)}") from error
    return Call(time.perf_counter() - wall, time.process_time() - cpu, arguments)


def report(name: str, calls: list[Call]) -> None:
    """Print a table row of the calls' times, then the slowest five beyond `LIMIT`."""
    walls, cpus = (sorted(getattr(call, clock) for call in calls) for clock in ("wall", "cpu"))
    over = [call for call in calls if call.wall > LIMIT]
    cells = [
        f"{1000 * value:.2f}"
        for times in (walls, cpus)
        for value in (statistics.median(times), times[len(times) * 99 // 100], times[-1])
    ]
    print(
        f"| {name} | {len(calls)} | {' | '.join(cells)} | {len(over)} | {sum(call.cpu > LIMIT for call in over)} |",
        flush=True,
    )
    for call in sorted(over, reverse=True)[:5]:
        print(f"  {call.wall:.3f} s, {call.cpu:.3f} s CPU: {[ascii(argument)[:120] for argument in call.arguments]}")


def opponents(answers: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield a pair to compare per answer; many pairs are nearly equal."""
    for position, answer in enumerate(answers):
        if position % 100 == 99:
            yield numeric_pair(rng)
        else:
            yield answer, rng.choice([damaged(answer, rng), answers[position - 1]])


def poisoned_groups(rng: random.Random) -> Iterator[list[str]]:
    """Yield groups of 16 answers, half of which some grader hangs on."""
    killers = ["9**9**9**9", "99999999!", "(x+1)**5000", "x/3", "2^{10^{10}}", "8**8**8**8", "88888888!", "(x+2)**5000"]
    for poison in (killers, rng.sample(KILLERS, 8), [answer for _ in range(4) for answer in numeric_pair(rng)]):
        group = [*poison, "12", "12 cm", "12.0", r"\frac{24}{2}", "13", "13", "-1", "B"]
        rng.shuffle(group)
        yield group


def main() -> None:
    """Print a table of call times and a table of vote times."""
    parser = argparse.ArgumentParser(description="Time the answer rules on hostile answers.")
    parser.add_argument("--answers", type=int, default=100_000, help="answers to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    answers = hostile_answers(arguments.answers, arguments.seed)
    print(
        f"{len(answers)} answers, {len(set(answers))} of them distinct, of up to {max(map(len, answers))} characters\n"
    )
    print(
        f"| | calls | wall ms: median | p99 | max | CPU ms: median | p99 | max | over {LIMIT} s of wall time "
        f"| of CPU time |\n|{'---|' * 10}"
    )
    report("canonical", [timed(canonical, answer) for answer in dict.fromkeys(answers)])
    report("equivalent", [timed(equivalent, *pair) for pair in opponents(answers, rng)])
    report(
        "extract_answer", [timed(extract_answer, rf"so \boxed{{{answer}}} or \boxed {{{answer}") for answer in answers]
    )
    print("\n| hostile group | rule | wall s | classes |\n|---|---|---|---|")
    for number, group in enumerate(poisoned_groups(rng)):
        for rule in get_args(AnswerRule):
            start = time.perf_counter()
            classes = classify(group, Comparison(rule))
            seconds = time.perf_counter() - start
            print(f"| {number} | {rule} | {seconds:.2f} | {len(classes.members)} |", flush=True)


if __name__ == "__main__":
    main()
