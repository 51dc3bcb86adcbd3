"""The hard laptop task, with longer chains of steps and larger numbers than `figure_task.py`.

It has four kinds of figure, 84 x 84 px: four bars, a rectangle, a right triangle and a frame (a rectangle with a
rectangular hole). Each kind has two main questions, so eight types of question are trained and evaluated; an answer
takes one to four steps. Kinds with fewer lengths make them harder to read, by fewer px per unit, longer lengths, and
more varied positions.

    mmupt data figures_hard
"""

from random import Random

from PIL import ImageDraw

from mmupt_data.figure_task import (
    FIGURES,
    RECTANGLE_AREA,
    RECTANGLE_PERIMETER,
    TRIANGLE_AREA,
    Figure,
    FigureKind,
    FigureQuestion,
    FigureTask,
    draw_bars,
    draw_legs,
    draw_rectangle,
    draw_triangle,
)

BARS_UNIT, MAX_BAR = 8, 9
RECTANGLE_UNIT, MAX_SIDE = 5, 14
TRIANGLE_UNIT, MAX_LEG = 5, 9
FRAME_UNIT, MAX_FRAME = 8, 8


def _frame_lengths(random: Random) -> tuple[int, ...]:
    """Draw outer width and height, and width and height of the hole, which leaves a border on every side."""
    width, height = random.randint(3, MAX_FRAME), random.randint(3, MAX_FRAME)
    return width, height, random.randint(1, width - 2), random.randint(1, height - 2)


def _draw_frame(pen: ImageDraw.ImageDraw, figure: Figure, left: int, bottom: int) -> None:
    draw_rectangle(pen, figure, left, bottom)
    x, y = left + FRAME_UNIT, bottom - FRAME_UNIT
    _, _, width, height = figure.lengths
    pen.rectangle((x, y - height * FRAME_UNIT, x + width * FRAME_UNIT, y), fill="white", outline="black")


FIGURES_HARD = FigureTask(
    "figures_hard",
    version=2,
    kinds=(
        FigureKind(
            "bars",
            BARS_UNIT,
            lambda random: tuple(random.randint(1, MAX_BAR) for _ in range(4)),
            max_offset=7,
            colors=1,
            shape=draw_bars,
            questions=(
                FigureQuestion(
                    "bars-sum",
                    "main",
                    ("what is the sum of the four bars ?", "what is the total height of the bars ?"),
                    lambda lengths, _: sum(lengths),
                ),
                FigureQuestion(
                    "bars-twice",
                    "main",
                    (
                        "what is two times the tallest bar minus the shortest ?",
                        "how much is two times the tallest bar less the shortest ?",
                    ),
                    lambda lengths, _: 2 * max(lengths) - min(lengths),
                ),
            ),
        ),
        FigureKind(
            "rectangle",
            RECTANGLE_UNIT,
            lambda random: (random.randint(1, MAX_SIDE), random.randint(1, MAX_SIDE)),
            max_offset=8,
            colors=1,
            shape=draw_rectangle,
            questions=(RECTANGLE_PERIMETER, RECTANGLE_AREA),
        ),
        FigureKind(
            "triangle",
            TRIANGLE_UNIT,
            lambda random: draw_legs(random, MAX_LEG),
            max_offset=11,
            colors=1,
            shape=draw_triangle,
            questions=(
                TRIANGLE_AREA,
                FigureQuestion(
                    "triangle-squares",
                    "main",
                    ("what is the sum of the squares of the legs ?", "how large are the two squares in total ?"),
                    lambda lengths, _: lengths[0] ** 2 + lengths[1] ** 2,
                ),
            ),
        ),
        FigureKind(
            "frame",
            FRAME_UNIT,
            _frame_lengths,
            max_offset=7,
            colors=1,
            shape=_draw_frame,
            questions=(
                FigureQuestion(
                    "frame-area",
                    "main",
                    ("what is the area of the frame ?", "how large is the frame ?"),
                    lambda lengths, _: lengths[0] * lengths[1] - lengths[2] * lengths[3],
                ),
                FigureQuestion(
                    "frame-perimeter",
                    "main",
                    (
                        "what is the perimeter of the frame and of the hole ?",
                        "how long are the ways around the frame ?",
                    ),
                    lambda lengths, _: 2 * sum(lengths),
                ),
            ),
        ),
    ),
)

# By name.
FIGURE_TASKS = {task.name: task for task in (FIGURES, FIGURES_HARD)}
