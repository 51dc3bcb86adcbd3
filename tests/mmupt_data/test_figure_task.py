"""Tests of the laptop tasks, easy and hard: answers, splits, pictures and written files."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmupt_data.figure_task import (
    COLORS,
    FIGURES,
    SIZE,
    SPLIT_SHARES,
    Figure,
    FigureKind,
    FigureTask,
    answer,
    ask_in_turn,
    draw_figure,
    questions,
    recognise,
    sample_figures,
    split_of,
    write_figures,
)
from mmupt_data.hard_figure_task import FIGURES_HARD

TASKS = (FIGURES, FIGURES_HARD)
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)

BAR, BOX, WEDGE = FIGURES.kinds
HARD_BAR, HARD_BOX, HARD_WEDGE, FRAME = FIGURES_HARD.kinds
BARS = Figure(BAR, (2, 4, 7), ("red", "blue", "red"), (0, 0))
RECTANGLE = Figure(BOX, (3, 5), ("green",), (3, 1))
TRIANGLE = Figure(WEDGE, (3, 4), ("blue",), (0, 7))
HARD_BARS = Figure(HARD_BAR, (2, 4, 9, 1), ("red",), (0, 0))
HARD_RECTANGLE = Figure(HARD_BOX, (8, 9), ("green",), (3, 1))
HARD_TRIANGLE = Figure(HARD_WEDGE, (9, 8), ("blue",), (0, 7))
HARD_FRAME = Figure(FRAME, (7, 5, 3, 2), ("blue",), (0, 7))

# On a busy machine a deadline would make the tests flaky.
unhurried = settings(deadline=None, max_examples=50)

figures = st.builds(
    lambda task, seed: sample_figures("train", 8, seed, task)[seed % 8], st.sampled_from(TASKS), st.integers(0, 10_000)
)


@pytest.mark.parametrize(
    ("figure", "type", "expected"),
    [
        (BARS, "bars-sum", "13"),
        (BARS, "bars-difference", "5"),
        (BARS, "bars-red", "2"),
        (RECTANGLE, "rectangle-perimeter", "16"),
        (RECTANGLE, "rectangle-area", "15"),
        (TRIANGLE, "triangle-area", "6"),
        (TRIANGLE, "triangle-legs", "7"),
        (HARD_BARS, "bars-sum", "16"),
        (HARD_BARS, "bars-twice", "17"),
        (HARD_RECTANGLE, "rectangle-perimeter", "34"),
        (HARD_RECTANGLE, "rectangle-area", "72"),
        (HARD_TRIANGLE, "triangle-area", "36"),
        (HARD_TRIANGLE, "triangle-squares", "145"),
        (HARD_FRAME, "frame-area", "29"),
        (HARD_FRAME, "frame-perimeter", "34"),
    ],
)
def test_answers_equal_those_computed_by_hand(figure: Figure, type: str, expected: str) -> None:
    (question,) = [question for question in figure.kind.questions if question.type == type]
    assert answer(figure, question) == expected


def test_a_question_about_another_kind_of_figure_is_refused() -> None:
    (perimeter,) = questions(RECTANGLE, "main")
    with pytest.raises(ValueError, match="rectangle-perimeter cannot be asked of a figure of kind bars"):
        answer(BARS, perimeter)


@pytest.mark.parametrize("kind", FIGURES.kinds, ids=lambda kind: kind.name)
def test_every_kind_of_the_easy_task_has_one_main_and_one_second_question(kind: FigureKind) -> None:
    assert Counter(question.role for question in kind.questions if question.role != "unseen") == {
        "main": 1,
        "second": 1,
    }


def test_the_questions_of_a_kind_take_turns() -> None:
    figures = sample_figures("train", 16, 0, FIGURES_HARD)
    assigned = [question for _, question in ask_in_turn(figures, "main")]
    assert Counter(assigned) == {question: 2 for kind in FIGURES_HARD.kinds for question in kind.questions}
    assert [question.type for _, question in ask_in_turn([HARD_BARS, HARD_FRAME, HARD_BARS], "main")] == [
        "bars-sum",
        "frame-area",
        "bars-twice",
    ]


@unhurried
@given(figures)
def test_every_phrasing_is_recognised_as_its_question_and_no_other(figure: Figure) -> None:
    for question in questions(figure):
        for phrasing in question.phrasings:
            assert recognise(figure, f"  {phrasing.upper()} ") is question


def test_a_question_about_another_kind_of_figure_is_not_recognised() -> None:
    assert recognise(BARS, "what is the perimeter of the rectangle ?") is None
    assert recognise(BARS, "what is the sum of the two bars ?") is None


def extent(image: Image.Image, color: tuple[int, int, int]) -> tuple[int, int]:
    """Width and height, in px, of the smallest box around the pixels of one colour."""
    rows, columns = np.nonzero((np.asarray(image) == color).all(axis=-1))
    return int(columns.max() - columns.min() + 1), int(rows.max() - rows.min() + 1)


@unhurried
@given(figures)
def test_the_whole_outline_is_inside_the_picture(figure: Figure) -> None:
    image = draw_figure(figure)
    assert image.size == (SIZE, SIZE)
    assert image.mode == "RGB"
    width, height = extent(image, (0, 0, 0))
    bars = {FIGURES.kinds[0]: 64, FIGURES_HARD.kinds[0]: 66}
    unit = figure.kind.unit
    assert height == unit * (max(figure.lengths) if figure.kind in bars else figure.lengths[1]) + 1
    assert width == bars.get(figure.kind, unit * figure.lengths[0]) + 1


@pytest.mark.parametrize(
    ("figure", "width", "unit"),
    [(Figure(BAR, (2, 4, 7), ("red", "blue", "green"), (0, 0)), 16, 10), (HARD_BARS, 12, 8)],
    ids=["easy", "hard"],
)
def test_every_bar_has_its_color_and_its_height(figure: Figure, width: int, unit: int) -> None:
    image = draw_figure(figure)
    for index, length in enumerate(figure.lengths):
        left = 4 + index * width * 3 // 2
        bar = image.crop((left, 0, left + width, SIZE))
        # The outline takes a pixel on each side.
        assert extent(bar, COLORS[figure.colors[index % len(figure.colors)]]) == (width - 1, unit * length - 1)


def test_the_hole_of_a_frame_has_its_width_and_height() -> None:
    image = draw_figure(HARD_FRAME)
    inside = image.crop((4 + 8, 84 - 4 - 7 - 8 - 2 * 8, 4 + 8 + 3 * 8 + 1, 84 - 4 - 7 - 8 + 1))
    assert extent(inside, (255, 255, 255)) == (3 * 8 - 1, 2 * 8 - 1)
    assert extent(image, COLORS["blue"]) == (7 * 8 - 1, 5 * 8 - 1)


@unhurried
@given(figures, figures)
def test_different_figures_make_different_pictures(first: Figure, second: Figure) -> None:
    same_picture = draw_figure(first).tobytes() == draw_figure(second).tobytes()
    assert first.kind.unit != second.kind.unit or same_picture == (first == second)


@unhurried
@given(st.sampled_from(list(SPLIT_SHARES)), st.integers(1, 30), st.integers(0, 1000), st.sampled_from(TASKS))
def test_sampled_figures_belong_to_their_split_and_are_all_different(
    split: str, count: int, seed: int, task: FigureTask
) -> None:
    sampled = sample_figures(split, count, seed, task)
    assert {split_of(figure) for figure in sampled} == {split}
    assert len(set(sampled)) == count
    assert sampled == sample_figures(split, count, seed, task)


def test_the_split_of_a_figure_never_changes() -> None:
    assert [split_of(figure) for figure in (BARS, RECTANGLE, TRIANGLE)] == ["warm_start", "warm_start", "train"]


@pytest.mark.parametrize("split", SPLIT_SHARES)
def test_every_split_has_its_share_of_the_figures(split: str) -> None:
    boxes = [
        Figure(BOX, (width, height), (color,), (x, y))
        for width in range(1, 8)
        for height in range(1, 8)
        for color in COLORS
        for x in range(BOX.max_offset + 1)
        for y in range(BOX.max_offset + 1)
    ]
    share = sum(split_of(figure) == split for figure in boxes) / len(boxes)
    assert 100 * share == pytest.approx(SPLIT_SHARES[split], abs=1.5)


@each_task
def test_the_kinds_are_balanced(task: FigureTask) -> None:
    count = 100 * len(task.kinds)
    assert Counter(figure.kind for figure in sample_figures("train", count, 0, task)) == dict.fromkeys(task.kinds, 100)


@each_task
def test_triangles_have_whole_areas(task: FigureTask) -> None:
    triangles = [figure for figure in sample_figures("train", 300, 0, task) if figure.kind.name == "triangle"]
    assert all(figure.lengths[0] * figure.lengths[1] % 2 == 0 for figure in triangles)


@each_task
def test_every_split_has_enough_figures_for_the_default_sizes_and_the_warm_start(task: FigureTask) -> None:
    for split, count in {"train": 1536, "validation": 256, "test": 999, "warm_start": 12_000}.items():
        if (task, split) != (FIGURES, "warm_start"):
            assert len(sample_figures(split, count, 0, task)) == count


def test_asking_for_more_figures_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="'validation' has too few figures"):
        sample_figures("validation", 20_000, 0)


@each_task
def test_the_written_answer_matches_the_written_picture(task: FigureTask, tmp_path: Path) -> None:
    write_figures(tmp_path, train=6, validation=3, test=9, task=task)
    figures = sample_figures("test", 9, 0, task)
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    truths = pq.read_table(tmp_path / "test.truth.parquet").to_pylist()
    for figure, row, truth in zip(figures, rows, truths, strict=True):
        question = recognise(figure, row["prompt"][0]["content"].removeprefix("<image>"))
        assert question is not None
        assert row["question_type"] == question.type
        assert (truth["id"], truth["answer"]) == (row["id"], answer(figure, question))
        assert Image.open(io.BytesIO(row["images"][0]["bytes"])).tobytes() == draw_figure(figure).tobytes()


def test_no_picture_is_in_two_splits(tmp_path: Path) -> None:
    write_figures(tmp_path, train=60, validation=30, test=30)
    pictures = [
        row["images"][0]["bytes"]
        for split in ("train", "validation", "test")
        for row in pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
    ]
    assert len(set(pictures)) == 120


def test_a_second_write_with_the_same_parameters_does_nothing(tmp_path: Path) -> None:
    assert write_figures(tmp_path, train=3, validation=3, test=3)
    assert not write_figures(tmp_path, train=3, validation=3, test=3)
    assert write_figures(tmp_path, train=3, validation=3, test=3, seed=1)


def test_the_unseen_question_is_asked_of_bars_only(tmp_path: Path) -> None:
    write_figures(tmp_path, train=4, validation=2, test=2, role="unseen")
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [row["prompt"][0]["content"] for row in rows] == ["<image>how many red ?"] * 4
