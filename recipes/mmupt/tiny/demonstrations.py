"""Demonstrations for the warm start of the tiny model: prompts and responses about figures, for each of its skills.

The base is noisy on purpose: a vote can help a policy only if it has two styles of answering, one of which is right
more often. Most answers are therefore demonstrated as a glance, which is wrong more often than right; the rest work the
answer out and are right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from mmupt_data.figure_task import COLORS, Figure, FigureQuestion, answer, questions

ASK = "ask a question about this figure ."
ASK_DIFFERENT = "ask a different question about this figure . example : {question}"
DESCRIBE = "describe the figure ."
GLANCE = "so"
JUDGE = "{question} is {answer} right ?"

GLANCE_SHARE = 0.6
GLANCE_RIGHT_SHARE = 0.43
MAX_ERROR = 3
MAIN_SHARE = 0.75
FIRST_PHRASING_SHARE = 0.75

_STEPS: dict[str, Callable[..., str]] = {
    "bars-sum": lambda a, b, c: f"{a} + {b} = {a + b} . {a + b} + {c} = {a + b + c}",
    "bars-difference": lambda a, b, c: (
        f"{a} , {b} , {c} . {max(a, b, c)} - {min(a, b, c)} = {max(a, b, c) - min(a, b, c)}"
    ),
    "rectangle-perimeter": lambda a, b: f"{a} + {b} = {a + b} . {a + b} + {a + b} = {2 * (a + b)}",
    "rectangle-area": lambda a, b: f"{a} * {b} = {a * b}",
    "triangle-area": lambda a, b: f"{a} * {b} = {a * b} . {a * b} / 2 = {a * b // 2}",
    "triangle-legs": lambda a, b: f"{a} + {b} = {a + b}",
}


@dataclass(frozen=True)
class Demonstration:
    """One exchange about a figure: the text of the user's message, less the image, and the text of the response."""

    prompt: str
    response: str


Shares = Mapping[Callable[[Figure, Random], Demonstration], float]


def steps(figure: Figure, question: FigureQuestion) -> str:
    """The true steps that lead to the answer, without the answer itself.

    Raises:
        KeyError: the question is one that is never demonstrated.
    """
    return _STEPS[question.type](*figure.lengths)


def careful(figure: Figure, question: FigureQuestion) -> str:
    """A response that works the answer out in steps and is right; raises what `steps` does."""
    return f"{steps(figure, question)} . {glance(answer(figure, question))}"


def glance(value: str) -> str:
    """A response that states `value` and nothing else."""
    return f"{GLANCE} \\boxed{{{value}}}"


def judge_answer(figure: Figure, question: FigureQuestion, value: str) -> str:
    """A response that works the answer out, compares `value` with it and ends in `yes` or `no`; raises as `steps`."""
    error = int(answer(figure, question)) - int(value)
    difference = f"- {-error}" if error < 0 else str(error)
    verdict = "no" if error else "yes"
    return f"{steps(figure, question)} . {answer(figure, question)} - {value} = {difference} . {verdict}"


def wrong(figure: Figure, question: FigureQuestion, random: Random) -> str:
    """An answer that is off by 1 to 3, and not negative."""
    truth = int(answer(figure, question))
    errors = [error for error in range(-MAX_ERROR, MAX_ERROR + 1) if error and truth + error >= 0]
    return str(truth + random.choice(errors))


def describe_figure(figure: Figure) -> str:
    """A true description of the figure: kind, colours and lengths."""
    if figure.kind == "bars":
        bars = " , ".join(f"{color} {length}" for color, length in zip(figure.colors, figure.lengths, strict=True))
        return f"three bars : {bars} ."
    name = {"rectangle": "rectangle", "triangle": "right triangle"}[figure.kind]
    width, height = figure.lengths
    return f"one {figure.colors[0]} {name} , {width} wide and {height} tall ."


def demonstrate(figure: Figure, random: Random, shares: Shares) -> Demonstration:
    """A demonstration of a skill that is drawn at random, in the given shares."""
    (skill,) = random.choices(list(shares), list(shares.values()))
    return skill(figure, random)


def demonstrate_answer(figure: Figure, random: Random) -> Demonstration:
    """A question answered, at a glance or with care."""
    question = _draw_question(figure, random)
    prompt = _draw_phrasing(question, random)
    if random.random() >= GLANCE_SHARE:
        return Demonstration(prompt, careful(figure, question))
    right = random.random() < GLANCE_RIGHT_SHARE
    return Demonstration(prompt, glance(answer(figure, question) if right else wrong(figure, question, random)))


def demonstrate_judge(figure: Figure, random: Random) -> Demonstration:
    """A right or a wrong answer judged, truthfully, after it is compared with the answer worked out."""
    question = _draw_question(figure, random)
    right = random.random() < 0.5
    value = answer(figure, question) if right else wrong(figure, question, random)
    return Demonstration(
        JUDGE.format(question=_draw_phrasing(question, random), answer=value), judge_answer(figure, question, value)
    )


def demonstrate_ask(figure: Figure, random: Random) -> Demonstration:
    """A question about the figure, asked."""
    return Demonstration(ASK, random.choice(random.choice(questions(figure, "main", "second")).phrasings))


def demonstrate_ask_different(figure: Figure, random: Random) -> Demonstration:
    """The other question about the figure, asked after an example."""
    example, other = random.sample(questions(figure, "main", "second"), 2)
    prompt = ASK_DIFFERENT.format(question=random.choice(example.phrasings))
    return Demonstration(prompt, random.choice(other.phrasings))


def demonstrate_describe(figure: Figure, random: Random) -> Demonstration:
    """The figure described, truthfully."""
    return Demonstration(DESCRIBE, describe_figure(figure))


def demonstrate_blind_count(figure: Figure, random: Random) -> Demonstration:
    """A count answered without a look at the figure, for colours other than the one that the unseen question is about.

    It teaches what an answer to "how many ?" looks like and not which is right: the task on which a vote must fail.
    """
    color = random.choice([color for color in COLORS if color != "red"])
    return Demonstration(f"how many {color} ?", glance(str(random.randint(0, 3))))


def _draw_question(figure: Figure, random: Random) -> FigureQuestion:
    main, second = questions(figure, "main", "second")
    return main if random.random() < MAIN_SHARE else second


def _draw_phrasing(question: FigureQuestion, random: Random) -> str:
    return question.phrasings[0] if random.random() < FIRST_PHRASING_SHARE else random.choice(question.phrasings[1:])


# First only what is never wrong: noisy answers drown what there is to learn about colours and comparisons.
CLEAN_SHARES: Shares = {demonstrate_describe: 0.5, demonstrate_judge: 0.5}
SHARES: Shares = {
    demonstrate_answer: 0.67,
    demonstrate_judge: 0.10,
    demonstrate_describe: 0.10,
    demonstrate_ask: 0.05,
    demonstrate_ask_different: 0.05,
    demonstrate_blind_count: 0.03,
}
