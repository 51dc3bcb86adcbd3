"""Tests of the laptop task: answers, splits, pictures and the files that are written."""

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
    BAR_STEP,
    BAR_WIDTH,
    COLORS,
    KINDS,
    MAX_OFFSET,
    QUESTIONS,
    SIZE,
    SPLIT_SHARES,
    Figure,
    answer,
    draw_figure,
    questions,
    recognise,
    sample_figures,
    split_of,
    write_figures,
)

BARS = Figure("bars", (2, 4, 7), ("red", "blue", "red"), (0, 0))
RECTANGLE = Figure("rectangle", (3, 5), ("green",), (3, 1))
TRIANGLE = Figure("triangle", (3, 4), ("blue",), (0, 7))

# Busy machines are slow, not wrong.
unhurried = settings(deadline=None, max_examples=50)

lengths = st.integers(1, 7)
offsets = st.tuples(st.integers(0, MAX_OFFSET), st.integers(0, MAX_OFFSET))
colors = st.sampled_from(list(COLORS))
figures = st.one_of(
    st.builds(
        Figure, st.just("bars"), st.tuples(lengths, lengths, lengths), st.tuples(colors, colors, colors), offsets
    ),
    st.builds(Figure, st.just("rectangle"), st.tuples(lengths, lengths), st.tuples(colors), offsets),
    st.builds(
        Figure,
        st.just("triangle"),
        st.tuples(lengths, lengths).filter(lambda legs: legs[0] * legs[1] % 2 == 0),
        st.tuples(colors),
        offsets,
    ),
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
    ],
)
def test_the_answer_is_the_one_worked_out_by_hand(figure: Figure, type: str, expected: str) -> None:
    (question,) = [question for question in QUESTIONS if question.type == type]
    assert answer(figure, question) == expected


def test_a_question_about_another_kind_of_figure_is_refused() -> None:
    (perimeter,) = questions(RECTANGLE, "main")
    with pytest.raises(ValueError, match="rectangle-perimeter cannot be asked of a figure of kind bars"):
        answer(BARS, perimeter)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_one_main_and_one_second_question(kind: str) -> None:
    assert Counter(question.role for question in QUESTIONS if question.kind == kind and question.role != "unseen") == {
        "main": 1,
        "second": 1,
    }


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
    assert height == 10 * (max(figure.lengths) if figure.kind == "bars" else figure.lengths[1]) + 1
    assert width == (2 * BAR_STEP + BAR_WIDTH if figure.kind == "bars" else 10 * figure.lengths[0]) + 1


def test_every_bar_has_its_color_and_its_height() -> None:
    image = draw_figure(Figure("bars", (2, 4, 7), ("red", "blue", "green"), (0, 0)))
    for color, length in {"red": 2, "blue": 4, "green": 7}.items():
        # The outline takes a pixel on each side.
        assert extent(image, COLORS[color]) == (BAR_WIDTH - 1, 10 * length - 1)


@unhurried
@given(figures, figures)
def test_different_figures_make_different_pictures(one: Figure, other: Figure) -> None:
    assert (draw_figure(one).tobytes() == draw_figure(other).tobytes()) == (one == other)


@unhurried
@given(st.sampled_from(list(SPLIT_SHARES)), st.integers(1, 30), st.integers(0, 1000))
def test_sampled_figures_belong_to_their_split_and_are_all_different(split: str, count: int, seed: int) -> None:
    sampled = sample_figures(split, count, seed)
    assert {split_of(figure) for figure in sampled} == {split}
    assert len(set(sampled)) == count
    assert sampled == sample_figures(split, count, seed)


def test_the_split_of_a_figure_never_changes() -> None:
    assert [split_of(figure) for figure in (BARS, RECTANGLE, TRIANGLE)] == ["warm_start", "warm_start", "train"]


@pytest.mark.parametrize("split", SPLIT_SHARES)
def test_every_split_has_its_share_of_the_figures(split: str) -> None:
    every = [
        Figure("rectangle", (width, height), (color,), (x, y))
        for width in range(1, 8)
        for height in range(1, 8)
        for color in COLORS
        for x in range(MAX_OFFSET + 1)
        for y in range(MAX_OFFSET + 1)
    ]
    share = sum(split_of(figure) == split for figure in every) / len(every)
    assert 100 * share == pytest.approx(SPLIT_SHARES[split], abs=1.5)


def test_the_kinds_are_balanced() -> None:
    assert Counter(figure.kind for figure in sample_figures("train", 300, 0)) == dict.fromkeys(KINDS, 100)


def test_triangles_have_whole_areas() -> None:
    triangles = [figure for figure in sample_figures("train", 300, 0) if figure.kind == "triangle"]
    assert all(figure.lengths[0] * figure.lengths[1] % 2 == 0 for figure in triangles)


def test_asking_for_more_figures_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="'validation' has too few figures"):
        sample_figures("validation", 20_000, 0)


def test_the_written_truth_is_that_of_the_written_picture(tmp_path: Path) -> None:
    write_figures(tmp_path, train=6, validation=3, test=9)
    figures = sample_figures("test", 9, 0)
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


def test_preparing_twice_writes_once(tmp_path: Path) -> None:
    assert write_figures(tmp_path, train=3, validation=3, test=3)
    assert not write_figures(tmp_path, train=3, validation=3, test=3)
    assert write_figures(tmp_path, train=3, validation=3, test=3, seed=1)


def test_the_unseen_question_is_asked_of_bars_only(tmp_path: Path) -> None:
    write_figures(tmp_path, train=4, validation=2, test=2, role="unseen")
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert [row["prompt"][0]["content"] for row in rows] == ["<image>how many red ?"] * 4
