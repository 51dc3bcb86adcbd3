"""The laptop task: questions about small procedural figures whose answers are exact by construction.

`FIGURES` is the easy task: three bars, a rectangle and a right triangle, 84 x 84 px, with lengths of 1 to 7 units of
10 px. Each kind has a main question (the task that is trained and evaluated) and a second question about the same
figure; bars also have a question that the tiny model never sees, for the failure case. `hard_figure_task.py` has the
hard task. How a tiny model words its responses is not here.

    mmupt data figures
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from PIL import Image, ImageDraw

from mmupt_data.data_set import DataSet
from mmupt_data.row_schema import Row
from mmupt_data.writer import WriteOptions, write_dataset

Split = Literal["train", "validation", "test", "warm_start"]
Role = Literal["main", "second", "unseen"]

SIZE = 84
MARGIN = 4
# Three bars are 16 px wide and 24 px apart.
BARS_WIDTH = 72
# Distinct in brightness as well as in hue.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 60, 50),
    "green": (150, 220, 120),
    "blue": (30, 40, 140),
}
# A split is used up after this many consecutive draws of known figures or figures of other splits.
MAX_MISSES = 5_000
# Percent of all figures that belong to each split.
SPLIT_SHARES: dict[Split, int] = {"warm_start": 50, "train": 30, "validation": 8, "test": 12}


@dataclass(frozen=True, eq=False)
class FigureQuestion:
    """A question about every figure of one kind; the task uses the first of its `phrasings`.

    `solve` maps the lengths and the colours of a figure to the answer.
    """

    type: str
    role: Role
    phrasings: tuple[str, ...]
    solve: Callable[[tuple[int, ...], tuple[str, ...]], int]


@dataclass(frozen=True, eq=False)
class FigureKind:
    """One kind of figure.

    Attributes:
        unit: px per unit of length.
        max_offset: the largest shift of a figure right and up, in px.
        shape: draws a figure, given its bottom left corner in px.
        questions: the questions about each figure, main questions first.
    """

    name: str
    unit: int
    draw_lengths: Callable[[Random], tuple[int, ...]]
    max_offset: int
    colors: int
    shape: Callable[[ImageDraw.ImageDraw, "Figure", int, int], None]
    questions: tuple[FigureQuestion, ...]


@dataclass(frozen=True)
class Figure:
    """Everything that varies in a picture.

    `lengths` are in units: the heights of the bars from left to right, or the width and height of a rectangle, of a
    right triangle (its legs), or of a frame followed by those of its hole. `colors` has one name per bar, or one name.
    `offset` shifts the figure right and up, in px.
    """

    kind: FigureKind
    lengths: tuple[int, ...]
    colors: tuple[str, ...]
    offset: tuple[int, int]


@dataclass(frozen=True, eq=False)
class FigureTask:
    """The kinds of figure of one data set.

    `version` increases whenever a picture, a question or a split changes, so that old files are written anew.
    """

    name: str
    version: int
    kinds: tuple[FigureKind, ...]


def draw_bars(pen: ImageDraw.ImageDraw, figure: Figure, left: int, bottom: int) -> None:
    """Draw bars side by side, each in its colour, or all in one."""
    step = BARS_WIDTH // len(figure.lengths)
    for index, length in enumerate(figure.lengths):
        x = left + index * step
        fill = COLORS[figure.colors[index % len(figure.colors)]]
        pen.rectangle((x, bottom - length * figure.kind.unit, x + step * 2 // 3, bottom), fill=fill, outline="black")


def draw_rectangle(pen: ImageDraw.ImageDraw, figure: Figure, left: int, bottom: int) -> None:
    """Draw a rectangle of the first two lengths."""
    right, top = left + figure.lengths[0] * figure.kind.unit, bottom - figure.lengths[1] * figure.kind.unit
    corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
    pen.polygon(corners, fill=COLORS[figure.colors[0]], outline="black")


def draw_triangle(pen: ImageDraw.ImageDraw, figure: Figure, left: int, bottom: int) -> None:
    """Draw a triangle with its right angle at the bottom left."""
    right, top = left + figure.lengths[0] * figure.kind.unit, bottom - figure.lengths[1] * figure.kind.unit
    pen.polygon([(left, bottom), (right, bottom), (left, top)], fill=COLORS[figure.colors[0]], outline="black")


def draw_legs(random: Random, longest: int) -> tuple[int, ...]:
    """Draw two random lengths, at least one of them even: an odd product would make the triangle's area fractional."""
    while True:
        legs = (random.randint(1, longest), random.randint(1, longest))
        if legs[0] * legs[1] % 2 == 0:
            return legs


def _lengths(count: int) -> Callable[[Random], tuple[int, ...]]:
    return lambda random: tuple(random.randint(1, MAX_LENGTH) for _ in range(count))


UNIT = 10
MAX_OFFSET = UNIT - 1
MAX_LENGTH = 7

# Questions of both laptop tasks.
RECTANGLE_PERIMETER = FigureQuestion(
    "rectangle-perimeter",
    "main",
    ("what is the perimeter of the rectangle ?", "how long is the way around the rectangle ?"),
    lambda lengths, _: 2 * sum(lengths),
)
RECTANGLE_AREA = FigureQuestion(
    "rectangle-area",
    "main",
    ("what is the area of the rectangle ?", "how large is the rectangle ?"),
    lambda lengths, _: lengths[0] * lengths[1],
)
TRIANGLE_AREA = FigureQuestion(
    "triangle-area",
    "main",
    ("what is the area of the triangle ?", "how large is the triangle ?"),
    lambda lengths, _: lengths[0] * lengths[1] // 2,
)

FIGURES = FigureTask(
    "figures",
    version=2,
    kinds=(
        FigureKind(
            "bars",
            UNIT,
            _lengths(3),
            max_offset=MAX_OFFSET,
            colors=3,
            shape=draw_bars,
            questions=(
                FigureQuestion(
                    "bars-sum",
                    "main",
                    ("what is the sum of the three bars ?", "what is the total height of the bars ?"),
                    lambda lengths, _: sum(lengths),
                ),
                FigureQuestion(
                    "bars-difference",
                    "second",
                    (
                        "how much taller is the tallest bar than the shortest ?",
                        "what is the tallest bar minus the shortest ?",
                    ),
                    lambda lengths, _: max(lengths) - min(lengths),
                ),
                FigureQuestion("bars-red", "unseen", ("how many red ?",), lambda _, colors: colors.count("red")),
            ),
        ),
        FigureKind(
            "rectangle",
            UNIT,
            _lengths(2),
            max_offset=MAX_OFFSET,
            colors=1,
            shape=draw_rectangle,
            questions=(RECTANGLE_PERIMETER, replace(RECTANGLE_AREA, role="second")),
        ),
        FigureKind(
            "triangle",
            UNIT,
            lambda random: draw_legs(random, MAX_LENGTH),
            max_offset=MAX_OFFSET,
            colors=1,
            shape=draw_triangle,
            questions=(
                TRIANGLE_AREA,
                FigureQuestion(
                    "triangle-legs",
                    "second",
                    ("what is the sum of the two legs ?", "how long are the two legs in total ?"),
                    lambda lengths, _: sum(lengths),
                ),
            ),
        ),
    ),
)


def questions(figure: Figure, *roles: Role) -> tuple[FigureQuestion, ...]:
    """The questions about a figure, all or those of the given roles, main questions first."""
    return tuple(question for question in figure.kind.questions if not roles or question.role in roles)


def ask_in_turn(figures: Sequence[Figure], role: Role) -> Iterator[tuple[Figure, FigureQuestion]]:
    """Yield each figure that has questions of this role with one of them; the questions of a kind take turns."""
    asked: dict[FigureKind, int] = {}
    for figure in figures:
        if found := questions(figure, role):
            turn = asked.get(figure.kind, 0)
            asked[figure.kind] = turn + 1
            yield figure, found[turn % len(found)]


def recognise(figure: Figure, text: str) -> FigureQuestion | None:
    """The question about this figure that `text` asks, or None; spacing and case do not matter."""
    words = text.lower().split()
    return next((q for q in questions(figure) for phrasing in q.phrasings if phrasing.split() == words), None)


def answer(figure: Figure, question: FigureQuestion) -> str:
    """The true answer, a non-negative integer in digits.

    Raises:
        ValueError: the question is about another kind of figure.
    """
    if question not in figure.kind.questions:
        raise ValueError(f"{question.type} cannot be asked of a figure of kind {figure.kind.name}")
    return str(question.solve(figure.lengths, figure.colors))


def draw_figure(figure: Figure) -> Image.Image:
    """The picture, RGB, 84 x 84 px, on a grid whose squares are one unit wide."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(image)
    left, bottom = MARGIN + figure.offset[0], SIZE - MARGIN - figure.offset[1]
    unit = figure.kind.unit
    for line in range(SIZE // unit + 1):
        x, y = left % unit + line * unit, bottom % unit + line * unit
        pen.line((x, 0, x, SIZE), fill=(225, 225, 225))
        pen.line((0, y, SIZE, y), fill=(225, 225, 225))
    figure.kind.shape(pen, figure, left, bottom)
    return image


def split_of(figure: Figure) -> Split:
    """The only split that contains the figure, whatever the seed: a hash of everything that is drawn decides."""
    identity = repr((figure.kind.name, figure.lengths, figure.colors, figure.offset)).encode()
    bucket = int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") % 100
    for split, share in SPLIT_SHARES.items():
        bucket -= share
        if bucket < 0:
            return split
    raise AssertionError("the shares of the splits do not add up to 100")


def sample_figures(split: Split, count: int, seed: int, task: FigureTask = FIGURES) -> list[Figure]:
    """Draw `count` different figures of one split, whose kinds take turns.

    Raises:
        ValueError: the split has too few figures.
    """
    random = Random(f"{split}/{seed}")
    figures: dict[Figure, None] = {}
    misses = 0
    while len(figures) < count:
        figure = _random_figure(random, task.kinds[len(figures) % len(task.kinds)])
        if split_of(figure) == split and figure not in figures:
            figures[figure] = None
            misses = 0
        else:
            misses += 1
        if misses == MAX_MISSES:
            raise ValueError(f"the split {split!r} has too few figures for {count} different ones")
    return list(figures)


def _random_figure(random: Random, kind: FigureKind) -> Figure:
    lengths = kind.draw_lengths(random)
    colors = tuple(random.choice(list(COLORS)) for _ in range(kind.colors))
    return Figure(kind, lengths, colors, (random.randint(0, kind.max_offset), random.randint(0, kind.max_offset)))


def encode_png(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_figures(
    folder: Path,
    train: int = 1536,
    validation: int = 256,
    test: int = 512,
    seed: int = 0,
    role: Role = "main",
    task: FigureTask = FIGURES,
    options: WriteOptions = WriteOptions("stop"),
) -> bool:
    """Write the data set of the questions of one role; `mmupt_data.row_schema` describes the files.

    Args:
        train, validation, test: the number of figures per split, with one question each.
        role: the role of the question about each figure. Kinds without such a question are left out.

    Returns:
        Whether anything was written, see `write_dataset`.
    """
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    parameters = {"data_source": task.name, "version": task.version, "counts": counts, "seed": seed, "role": role}
    splits: dict[str, Iterator[Row]] = {split: _rows(split, count, seed, role, task) for split, count in counts.items()}
    return write_dataset(folder, splits, parameters, options=options)


def _rows(split: Split, count: int, seed: int, role: Role, task: FigureTask) -> Iterator[Row]:
    asked = [kind for kind in task.kinds if any(question.role == role for question in kind.questions)]
    figures = sample_figures(split, count * len(task.kinds) // len(asked), seed, task)
    for index, (figure, question) in enumerate(ask_in_turn(figures, role)):
        yield Row(
            id=f"{task.name}-{role}-{split}-{index:05d}",
            data_source=task.name,
            question=f"<image>{question.phrasings[0]}",
            images=(encode_png(draw_figure(figure)),),
            question_type=question.type,
            answer=answer(figure, question),
        )


@dataclass(frozen=True)
class FigureDataset(DataSet):
    """The questions of one role as a data set, which is drawn and has no source."""

    name: str
    summary: str
    role: Role
    task: FigureTask = FIGURES

    def write(self, folder: Path, source: str | None, revision: str | None, options: WriteOptions) -> bool:
        """Write the data set in its usual size. Raises ValueError for a source or revision: figures have none."""
        if source or revision:
            raise ValueError(f"{self.name} is drawn here: it has neither SOURCE nor REVISION")
        return write_figures(folder, role=self.role, task=self.task, options=options)
