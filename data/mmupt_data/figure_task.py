"""The laptop task: questions about small procedural figures whose answers are exact by construction.

Three kinds of figure, 84 x 84 px: three bars, a rectangle, a right triangle, with lengths of 1 to 7 units of 10 px.
Each kind has a main question (the task that is trained and evaluated) and a second one, so that another question about
the same figure exists; bars also have a question that the tiny model is never shown, kept for the failure case. How the
tiny model words a response is not here.

    mmupt data figures
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from PIL import Image, ImageDraw

from mmupt_data.row_schema import Row
from mmupt_data.writer import BadRows, write_dataset

FigureKind = Literal["bars", "rectangle", "triangle"]
Split = Literal["train", "validation", "test", "warm_start"]
Role = Literal["main", "second", "unseen"]

# Raised whenever a picture, a question or a split changes, so that files written before are written anew.
VERSION = 2
SIZE = 84
UNIT = 10
MAX_LENGTH = 7
MAX_OFFSET = 9
BAR_WIDTH, BAR_STEP = 16, 24
MARGIN = 4
# Apart in brightness as well as in hue.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 60, 50),
    "green": (150, 220, 120),
    "blue": (30, 40, 140),
}
# So many figures in a row that are of another split or already drawn mean that the split is used up.
MAX_MISSES = 5_000
KINDS: tuple[FigureKind, ...] = ("bars", "rectangle", "triangle")
# Percent of all figures that belong to each split.
SPLIT_SHARES: dict[Split, int] = {"warm_start": 50, "train": 30, "validation": 8, "test": 12}


@dataclass(frozen=True)
class Figure:
    """What is drawn: nothing else about a picture varies.

    `lengths` are in units of 10 px, 1 to 7: the heights of the three bars from left to right, or the width and height
    of a rectangle or of a right triangle (its legs). `colors` has one name for each bar, or one name. `offset` moves
    the figure right and up, in px.
    """

    kind: FigureKind
    lengths: tuple[int, ...]
    colors: tuple[str, ...]
    offset: tuple[int, int]


@dataclass(frozen=True)
class FigureQuestion:
    """A question that can be asked of every figure of one kind; the first of `phrasings` is the one the task uses."""

    type: str
    kind: FigureKind
    role: Role
    phrasings: tuple[str, ...]
    solve: Callable[[Figure], int]


QUESTIONS: tuple[FigureQuestion, ...] = (
    FigureQuestion(
        "bars-sum",
        "bars",
        "main",
        ("what is the sum of the three bars ?", "what is the total height of the bars ?"),
        lambda figure: sum(figure.lengths),
    ),
    FigureQuestion(
        "bars-difference",
        "bars",
        "second",
        ("how much taller is the tallest bar than the shortest ?", "what is the tallest bar minus the shortest ?"),
        lambda figure: max(figure.lengths) - min(figure.lengths),
    ),
    FigureQuestion(
        "bars-red",
        "bars",
        "unseen",
        ("how many red ?",),
        lambda figure: figure.colors.count("red"),
    ),
    FigureQuestion(
        "rectangle-perimeter",
        "rectangle",
        "main",
        ("what is the perimeter of the rectangle ?", "how long is the way around the rectangle ?"),
        lambda figure: 2 * sum(figure.lengths),
    ),
    FigureQuestion(
        "rectangle-area",
        "rectangle",
        "second",
        ("what is the area of the rectangle ?", "how large is the rectangle ?"),
        lambda figure: figure.lengths[0] * figure.lengths[1],
    ),
    FigureQuestion(
        "triangle-area",
        "triangle",
        "main",
        ("what is the area of the triangle ?", "how large is the triangle ?"),
        lambda figure: figure.lengths[0] * figure.lengths[1] // 2,
    ),
    FigureQuestion(
        "triangle-legs",
        "triangle",
        "second",
        ("what is the sum of the two legs ?", "how long are the two legs in total ?"),
        lambda figure: sum(figure.lengths),
    ),
)


def questions(figure: Figure, *roles: Role) -> tuple[FigureQuestion, ...]:
    """The questions that the figure answers, all of them or those of the given roles, the main one first."""
    return tuple(
        question for question in QUESTIONS if question.kind == figure.kind and (not roles or question.role in roles)
    )


def recognise(figure: Figure, text: str) -> FigureQuestion | None:
    """The question about this figure that `text` words, or None where it words none; spacing and case do not matter."""
    words = text.lower().split()
    return next((q for q in questions(figure) for phrasing in q.phrasings if phrasing.split() == words), None)


def answer(figure: Figure, question: FigureQuestion) -> str:
    """The true answer, a non-negative integer in digits.

    Raises:
        ValueError: the question is about another kind of figure.
    """
    if question.kind != figure.kind:
        raise ValueError(f"{question.type} cannot be asked of a figure of kind {figure.kind}")
    return str(question.solve(figure))


def draw_figure(figure: Figure) -> Image.Image:
    """The picture, RGB, 84 x 84 px, on a grid whose squares are one unit wide."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(image)
    left, bottom = MARGIN + figure.offset[0], SIZE - MARGIN - figure.offset[1]
    for line in range(SIZE // UNIT + 1):
        x, y = left % UNIT + line * UNIT, bottom % UNIT + line * UNIT
        pen.line((x, 0, x, SIZE), fill=(225, 225, 225))
        pen.line((0, y, SIZE, y), fill=(225, 225, 225))
    if figure.kind == "bars":
        for index, (length, color) in enumerate(zip(figure.lengths, figure.colors, strict=True)):
            x = left + index * BAR_STEP
            pen.rectangle((x, bottom - length * UNIT, x + BAR_WIDTH, bottom), fill=COLORS[color], outline="black")
    else:
        right, top = left + figure.lengths[0] * UNIT, bottom - figure.lengths[1] * UNIT
        corners = [(left, bottom), (right, bottom), (left, top)]
        if figure.kind == "rectangle":
            corners.insert(2, (right, top))
        pen.polygon(corners, fill=COLORS[figure.colors[0]], outline="black")
    return image


def split_of(figure: Figure) -> Split:
    """The one split that the figure belongs to, whatever the seed: a hash of everything that is drawn decides."""
    identity = repr((figure.kind, figure.lengths, figure.colors, figure.offset)).encode()
    bucket = int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") % 100
    for split, share in SPLIT_SHARES.items():
        bucket -= share
        if bucket < 0:
            return split
    raise AssertionError("the shares of the splits do not add up to 100")


def sample_figures(split: Split, count: int, seed: int) -> list[Figure]:
    """`count` different figures of one split, the three kinds in turn.

    Raises:
        ValueError: the split has too few figures.
    """
    random = Random(f"{split}/{seed}")
    figures: dict[Figure, None] = {}
    misses = 0
    while len(figures) < count:
        figure = _random_figure(random, KINDS[len(figures) % len(KINDS)])
        if split_of(figure) == split and figure not in figures:
            figures[figure] = None
            misses = 0
        else:
            misses += 1
        if misses == MAX_MISSES:
            raise ValueError(f"the split {split!r} has too few figures for {count} different ones")
    return list(figures)


def _random_figure(random: Random, kind: FigureKind) -> Figure:
    parts = 3 if kind == "bars" else 2
    lengths = tuple(random.randint(1, MAX_LENGTH) for _ in range(parts))
    # An odd product would make the triangle's area a half.
    while kind == "triangle" and lengths[0] * lengths[1] % 2:
        lengths = tuple(random.randint(1, MAX_LENGTH) for _ in range(parts))
    colors = tuple(random.choice(list(COLORS)) for _ in range(3 if kind == "bars" else 1))
    return Figure(kind, lengths, colors, (random.randint(0, MAX_OFFSET), random.randint(0, MAX_OFFSET)))


def encode_png(image: Image.Image) -> bytes:
    """The bytes of the picture's PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_figures(
    folder: Path, train: int = 1536, validation: int = 256, test: int = 512, seed: int = 0, role: Role = "main"
) -> bool:
    """Write the data set of the questions of one role; see `mmupt_data.row_schema` for files and result.

    Args:
        folder: where the files go.
        train, validation, test: the number of figures of each split, one question each.
        seed: which figures are drawn from each split.
        role: which question is asked of each figure. The unseen question is about bars, so that its data set holds bars
        only.
    """
    counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    parameters = {"data_source": "figures", "version": VERSION, "counts": counts, "seed": seed, "role": role}
    return write_dataset(
        folder, {split: _rows(split, count, seed, role) for split, count in counts.items()}, parameters
    )


def _rows(split: Split, count: int, seed: int, role: Role) -> Iterator[Row]:
    kinds = {question.kind for question in QUESTIONS if question.role == role}
    figures = sample_figures(split, count * len(KINDS) // len(kinds), seed)
    for index, figure in enumerate(figure for figure in figures if figure.kind in kinds):
        (question,) = questions(figure, role)
        yield Row(
            id=f"figures-{role}-{split}-{index:05d}",
            data_source="figures",
            question=f"<image>{question.phrasings[0]}",
            images=(encode_png(draw_figure(figure)),),
            question_type=question.type,
            answer=answer(figure, question),
        )


@dataclass(frozen=True)
class FigureDataset:
    """The questions of one role as a data set, see `mmupt_data.catalog.DataSet`; it is drawn, and has no source."""

    name: str
    summary: str
    role: Role

    def prepare(
        self,
        folder: Path,
        source: str | None = None,
        revision: str | None = None,
        bad_rows: BadRows = "stop",
        workers: int | None = None,
        progress: bool = False,
    ) -> bool:
        """Write the data set in its usual size. Raises ValueError for a source or revision: figures have none."""
        if source or revision:
            raise ValueError(f"{self.name} is drawn here: it has neither SOURCE nor REVISION")
        return write_figures(folder, role=self.role)
