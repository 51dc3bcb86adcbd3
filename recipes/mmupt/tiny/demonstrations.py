"""Demonstrations for the warm start of the tiny models: prompts and responses about figures, for each skill.

The base models are noisy on purpose: a vote can only help a policy with two styles of answering, where one style is
right more often. So most demonstrated answers are glances, which are wrong more often than right; the others are worked
out step by step and right. On the hard task, a `Habit` per type of question sets the shares. Two of its types mislead a
vote: rectangle areas are often glanced at with the same shortcut, and most triangle areas are worked out without the
last step, so that the majority is wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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


def _frame_area_steps(width: int, height: int, hole_width: int, hole_height: int) -> str:
    outer, hole = width * height, hole_width * hole_height
    return f"{width} * {height} = {outer} . {hole_width} * {hole_height} = {hole} . {outer} - {hole} = {outer - hole}"


def _frame_perimeter_steps(width: int, height: int, hole_width: int, hole_height: int) -> str:
    outer, hole = width + height, hole_width + hole_height
    half = outer + hole
    return (
        f"{width} + {height} = {outer} . {hole_width} + {hole_height} = {hole} . {outer} + {hole} = {half} . "
        f"{half} + {half} = {2 * half}"
    )


def _sum_steps(first: int, *others: int) -> str:
    equations = []
    for other in others:
        equations.append(f"{first} + {other} = {first + other}")
        first += other
    return " . ".join(equations)


_STEPS: dict[str, Callable[..., str]] = {
    "bars-sum": _sum_steps,
    "bars-difference": lambda a, b, c: (
        f"{a} , {b} , {c} . {max(a, b, c)} - {min(a, b, c)} = {max(a, b, c) - min(a, b, c)}"
    ),
    "bars-twice": lambda *bars: (
        f"{' , '.join(map(str, bars))} . 2 * {max(bars)} = {2 * max(bars)} . "
        f"{2 * max(bars)} - {min(bars)} = {2 * max(bars) - min(bars)}"
    ),
    "rectangle-perimeter": lambda a, b: f"{a} + {b} = {a + b} . {a + b} + {a + b} = {2 * (a + b)}",
    "rectangle-area": lambda a, b: f"{a} * {b} = {a * b}",
    "triangle-area": lambda a, b: f"{a} * {b} = {a * b} . {a * b} / 2 = {a * b // 2}",
    "triangle-legs": lambda a, b: f"{a} + {b} = {a + b}",
    "triangle-squares": lambda a, b: f"{a} * {a} = {a * a} . {b} * {b} = {b * b} . {a * a} + {b * b} = {a * a + b * b}",
    "frame-area": _frame_area_steps,
    "frame-perimeter": _frame_perimeter_steps,
}

# Wrong answers from the first length only, as if the rectangle were a square.
_SHORTCUTS: dict[str, Callable[..., int]] = {
    "rectangle-perimeter": lambda a, _: 4 * a,
    "rectangle-area": lambda a, _: a * a,
}


@dataclass(frozen=True)
class Habit:
    """How answers to one type of question are demonstrated.

    Attributes:
        glance: share of answers that are stated at a glance; the others are worked out.
        glance_right: share of glances that are right.
        glance_shortcut: share of glances that state the result of a shortcut; the remaining glances are off by 1 to 3.
        slip: share of worked-out answers without the last step, which makes them wrong.
    """

    glance: float = GLANCE_SHARE
    glance_right: float = GLANCE_RIGHT_SHARE
    glance_shortcut: float = 0.0
    slip: float = 0.0


HARD_HABITS: Mapping[str, Habit] = {
    "bars-sum": Habit(glance=0.45),
    "bars-twice": Habit(glance=0.45),
    "rectangle-perimeter": Habit(glance=0.45),
    "rectangle-area": Habit(glance=0.45, glance_right=0.2, glance_shortcut=0.55),
    # Far from a tie, so that answers without the last step are the majority for every seed.
    "triangle-area": Habit(glance=0.3, slip=0.75),
    "triangle-squares": Habit(glance=0.42),
    "frame-area": Habit(glance=0.42),
    "frame-perimeter": Habit(glance=0.42),
}


@dataclass(frozen=True)
class Demonstration:
    """One exchange about a figure: the text of the user's message, without the image, and of the response."""

    prompt: str
    response: str


Shares = Mapping[Callable[[Figure, Random], Demonstration], float]


def steps(figure: Figure, question: FigureQuestion) -> str:
    """The true steps to the answer, without the answer; KeyError for a question that is not demonstrated."""
    return _STEPS[question.type](*figure.lengths)


def careful(figure: Figure, question: FigureQuestion) -> str:
    """A right response that works the answer out in steps; raises as `steps`."""
    return f"{steps(figure, question)} . {glance(answer(figure, question))}"


def slip(figure: Figure, question: FigureQuestion) -> str:
    """A wrong response that works the answer out but omits the last step; raises as `steps`."""
    first_steps, _, _ = steps(figure, question).rpartition(" . ")
    return f"{first_steps} . {glance(first_steps.rpartition(' = ')[2])}"


def glance(value: str) -> str:
    """A response that only states `value`."""
    return f"{GLANCE} \\boxed{{{value}}}"


def judge_answer(figure: Figure, question: FigureQuestion, value: str) -> str:
    """A response that works the answer out, compares it with `value` and ends in `yes` or `no`; raises as `steps`."""
    error = int(answer(figure, question)) - int(value)
    difference = f"- {-error}" if error < 0 else str(error)
    verdict = "no" if error else "yes"
    return f"{steps(figure, question)} . {answer(figure, question)} - {value} = {difference} . {verdict}"


def wrong(figure: Figure, question: FigureQuestion, random: Random) -> str:
    """A wrong answer: off by 1 to 3, and not negative."""
    truth = int(answer(figure, question))
    errors = [error for error in range(-MAX_ERROR, MAX_ERROR + 1) if error and truth + error >= 0]
    return str(truth + random.choice(errors))


def describe_figure(figure: Figure) -> str:
    """A true description of the figure: kind, colours and lengths."""
    color, lengths = figure.colors[0], figure.lengths
    match figure.kind.name:
        case "bars" if len(figure.colors) == 1:
            return f"four {color} bars : {' , '.join(map(str, lengths))} ."
        case "bars":
            bars = " , ".join(f"{color} {length}" for color, length in zip(figure.colors, lengths, strict=True))
            return f"three bars : {bars} ."
        case "frame":
            outer, hole = " , ".join(map(str, lengths[:2])), " , ".join(map(str, lengths[2:]))
            return f"one {color} frame : {outer} , hole : {hole} ."
    name = {"rectangle": "rectangle", "triangle": "right triangle"}[figure.kind.name]
    return f"one {color} {name} , {lengths[0]} wide and {lengths[1]} tall ."


def demonstrate(figure: Figure, random: Random, shares: Shares) -> Demonstration:
    """A demonstration of a random skill, drawn with the given shares."""
    (skill,) = random.choices(list(shares), list(shares.values()))
    return skill(figure, random)


def demonstrate_answer(figure: Figure, random: Random, habits: Mapping[str, Habit] | None = None) -> Demonstration:
    """A question with an answer in the style drawn from the habit for its type, or from the default habit."""
    question = _draw_question(figure, random)
    prompt = _draw_phrasing(question, random)
    habit = (habits or {}).get(question.type, Habit())
    if random.random() >= habit.glance:
        slipped = habit.slip and random.random() < habit.slip
        return Demonstration(prompt, slip(figure, question) if slipped else careful(figure, question))
    draw = random.random()
    if draw < habit.glance_right:
        value = answer(figure, question)
    elif draw < habit.glance_right + habit.glance_shortcut:
        value = str(_SHORTCUTS[question.type](*figure.lengths))
    else:
        value = wrong(figure, question, random)
    return Demonstration(prompt, glance(value))


def demonstrate_judge(figure: Figure, random: Random) -> Demonstration:
    """A right or wrong answer, judged truthfully by comparing it with the worked-out answer."""
    question = _draw_question(figure, random)
    right = random.random() < 0.5
    value = answer(figure, question) if right else wrong(figure, question, random)
    return Demonstration(
        JUDGE.format(question=_draw_phrasing(question, random), answer=value), judge_answer(figure, question, value)
    )


def demonstrate_ask(figure: Figure, random: Random) -> Demonstration:
    """A request for a question about the figure, with a question."""
    return Demonstration(ASK, random.choice(random.choice(questions(figure, "main", "second")).phrasings))


def demonstrate_ask_different(figure: Figure, random: Random) -> Demonstration:
    """A request for a question that differs from an example, with another question about the figure."""
    example, other = random.sample(questions(figure, "main", "second"), 2)
    prompt = ASK_DIFFERENT.format(question=random.choice(example.phrasings))
    return Demonstration(prompt, random.choice(other.phrasings))


def demonstrate_describe(figure: Figure, random: Random) -> Demonstration:
    """A request to describe the figure, with a true description."""
    return Demonstration(DESCRIBE, describe_figure(figure))


def demonstrate_blind_count(figure: Figure, random: Random) -> Demonstration:
    """A random answer to "how many ?", for all colours except red, which the unseen question of the task asks about.

    It teaches the form of an answer, but not which answer is right, so that a vote on the unseen question must fail.
    """
    color = random.choice([color for color in COLORS if color != "red"])
    return Demonstration(f"how many {color} ?", glance(str(random.randint(0, 3))))


def _draw_question(figure: Figure, random: Random) -> FigureQuestion:
    main, second = questions(figure, "main"), questions(figure, "second")
    share = MAIN_SHARE if second else 1.0
    draw = random.random()
    return main[int(draw / share * len(main))] if draw < share else second[0]


def _draw_phrasing(question: FigureQuestion, random: Random) -> str:
    return question.phrasings[0] if random.random() < FIRST_PHRASING_SHARE else random.choice(question.phrasings[1:])


# Training starts with skills that are never wrong: noisy answers would hinder learning colours and comparisons.
CLEAN_SHARES: Shares = {demonstrate_describe: 0.5, demonstrate_judge: 0.5}
SHARES: Shares = {
    demonstrate_answer: 0.67,
    demonstrate_judge: 0.10,
    demonstrate_describe: 0.10,
    demonstrate_ask: 0.05,
    demonstrate_ask_different: 0.05,
    demonstrate_blind_count: 0.03,
}
HARD_SHARES: Shares = {
    partial(demonstrate_answer, habits=HARD_HABITS): 0.70,
    demonstrate_judge: 0.10,
    demonstrate_describe: 0.10,
    demonstrate_ask: 0.05,
    demonstrate_ask_different: 0.05,
}
