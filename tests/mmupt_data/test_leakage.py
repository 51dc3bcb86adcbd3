"""Tests of the leakage search: planted copies are found, and unrelated rows raise no alarm."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from leakage_rows import CONTENT, LONG, SHORT, write
from PIL import Image, ImageDraw

from benchmarks.random_groups import CHANGES, drawing, encode, long_question, photo, question, reworded
from mmupt_data import figure_task, leakage
from mmupt_data.leakage import hashes, overlaps


def pairs(folder: Path, train: Sequence[CONTENT], test: Sequence[CONTENT]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return the overlaps of two sets as (training row, evaluation row, kinds)."""
    files = write(folder / "train" / "train.parquet", train), write(folder / "test" / "test.parquet", test)
    return [(pair.train.row, pair.evaluation.row, pair.kinds) for pair in overlaps(files[:1], files[1:])]


def test_all_altered_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    images = [*map(drawing, range(12)), *map(photo, range(2))]
    copies = [(number, alter(image)) for alter in CHANGES.values() for number, image in enumerate(images)]
    train = [(SHORT, [encode(image)]) for image in images]
    overlapping = pairs(tmp_path, train, [(SHORT, [encode(copy, "BMP")]) for _, copy in copies])
    # Photographs have no margins to trim: they stay the same image.
    assert {kinds for _, _, kinds in overlapping} == {("image near",), ("image exact",)}
    assert {(left, right) for left, right, _ in overlapping} == {
        (number, row) for row, (number, _) in enumerate(copies)
    }


def test_the_cropped_image_may_be_in_the_training_set(tmp_path: Path) -> None:
    crop = CHANGES["5 % cropped, all around"](drawing(1))
    assert pairs(tmp_path, [(SHORT, [encode(crop)])], [(SHORT, [encode(drawing(1))])]) == [(0, 0, ("image near",))]


def test_a_hash_says_which_low_frequencies_are_above_their_median() -> None:
    """Computed from the definition: the 8 x 8 lowest frequencies of the DCT of 32 x 32 px."""
    thumbnail = np.asarray(photo(1).convert("L").resize((64, 64)))
    pixels = thumbnail.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    basis = np.array([[np.cos(np.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(8)])
    low = basis @ pixels @ basis.T
    bits = np.unpackbits(hashes(thumbnail[None])[0, :1].view(np.uint8)).reshape(8, 8)
    assert np.array_equal(bits.astype(bool), low > np.median(low))


def test_one_of_the_hashes_of_crops_is_close_to_the_hash_of_the_cropped_image() -> None:
    image = photo(1).convert("L")
    right = image.crop((0, 0, round(0.95 * image.width), image.height))
    uncropped, cropped = (np.asarray(picture.resize((64, 64), Image.Resampling.BOX)) for picture in (image, right))
    distances = np.bitwise_count(hashes(uncropped[None])[0] ^ hashes(cropped[None])[0, 0])
    # Index 1: the crop's width varies fastest, and its second value cuts the right side only.
    assert distances.argmin() == 1
    assert distances.min() <= 4


def test_drawings_in_squares_are_no_copies_of_bare_squares(tmp_path: Path) -> None:
    def framed(margin: int, *lines: tuple[float, float, float, float]) -> Image.Image:
        image = Image.new("RGB", (300, 300), "white")
        pen, side = ImageDraw.Draw(image), 300 - 2 * margin
        pen.rectangle((margin, margin, 300 - margin, 300 - margin), outline="black", width=2)
        for line in lines:
            pen.line([margin + side * place for place in line], fill="black", width=2)
        return image

    bare = [framed(margin) for margin in (40, 100)]
    others = [
        framed(5, (0.5, 0, 0.5, 1), (0, 0.5, 1, 0.5)),
        framed(9, (1 / 3, 0, 1 / 3, 1), (2 / 3, 0, 2 / 3, 1)),
        framed(20, (0, 0, 1, 1)),
    ]
    train, test = ([(SHORT, [encode(image)]) for image in images] for images in (bare, others))
    assert pairs(tmp_path, train, test) == []


def test_specks_on_empty_pages_are_no_copies(tmp_path: Path) -> None:
    def speck(x: int, y: int) -> bytes:
        image = Image.new("RGB", (300, 200), "white")
        ImageDraw.Draw(image).ellipse((x, y, x + 8, y + 8), fill="black")
        return encode(image)

    assert pairs(tmp_path, [(SHORT, [speck(20, 30)])], [(SHORT, [speck(200, 150)])]) == []


def test_a_thousand_unrelated_pairs_of_rows_raise_no_alarm(tmp_path: Path) -> None:
    def rows(first: int) -> list[CONTENT]:
        seeds = range(first, first + 32)
        return [(question(seed), [encode((photo if seed % 4 == 0 else drawing)(seed), "BMP")]) for seed in seeds]

    assert pairs(tmp_path, rows(0), rows(1000)) == []


def test_a_lossless_copy_in_another_format_is_the_same_image(tmp_path: Path) -> None:
    images = encode(drawing(1), "PNG"), encode(drawing(1), "BMP")
    assert pairs(tmp_path, [(SHORT, images[:1])], [(SHORT, images[1:])]) == [(0, 0, ("image exact",))]


def test_the_exact_search_distinguishes_figures_that_differ_by_one_unit(tmp_path: Path) -> None:
    for split, count in (("train", 60), ("test", 60)):
        drawn = figure_task.sample_figures(split, count, 0)
        write(
            tmp_path / split / "a.parquet",
            [(SHORT, [figure_task.encode_png(figure_task.draw_figure(figure))]) for figure in drawn],
        )
    train, test = ([tmp_path / split / "a.parquet"] for split in ("train", "test"))
    assert overlaps(train, test, images="exact") == []
    assert overlaps(train, test, images="near") != []
    assert len(overlaps(train, train, images="exact")) == 60


def test_empty_images_match_nothing(tmp_path: Path) -> None:
    white, off_white = (encode(Image.new("RGB", (90, 90), color)) for color in ("white", (254, 254, 254)))
    assert pairs(tmp_path, [(SHORT, [white])], [(SHORT, [off_white])]) == []


def test_a_long_question_matches_in_another_case_spacing_and_punctuation(tmp_path: Path) -> None:
    train = [(LONG, [encode(drawing(1))])]
    assert pairs(tmp_path, train, [(reworded(LONG), [encode(photo(1))])]) == [(0, 0, ("question exact",))]


def test_a_question_with_a_lead_in_or_another_word_is_near(tmp_path: Path) -> None:
    one_word = LONG.replace("triangle", "figure", 1)
    assert one_word != LONG
    test = [("Look at the picture and think before you answer. " + LONG, []), (one_word, [])]
    assert pairs(tmp_path, [(LONG, [])], test) == [(0, row, ("question near",)) for row in range(2)]


@pytest.mark.parametrize("lead", ["", "Look at the sketch and reason about it. "])
def test_a_question_in_symbols_matches_the_question_in_words(tmp_path: Path, lead: str) -> None:
    symbols = "In △PQR, ∠P = 47.5° and ⊙O has radius 19, QR ∥ ST, ST ⊥ OP; then ∠QRS is ( ) (A) 20° (B) √3/2 (C) 6π"
    spelled = (
        "In triangle P Q R, angle P = 47.50 degrees and circle O has radius 19, QR parallel ST, ST perpendicular OP; "
        r"then angle QRS is () Choices: A:$20^{\circ}$ B:\frac{\sqrt{3}}{2} C:6\pi"
    )
    assert pairs(tmp_path, [(symbols, [])], [(lead + spelled, [])]) == [(0, 0, ("question near",))]


def test_a_question_with_another_number_is_another_question(tmp_path: Path) -> None:
    text = "A ladder of 20.5 m leans on a wall and its foot is 7 m away from it. Which height does it reach?"
    assert pairs(tmp_path, [(text, [])], [(text.replace("20.5", "21.5"), [])]) == []


@pytest.mark.parametrize("text", ["Find x.", "What is the length of AB in the figure?"])
def test_the_same_short_question_about_another_image_is_no_overlap(tmp_path: Path, text: str) -> None:
    assert pairs(tmp_path, [(text, [encode(drawing(1))])], [(text, [encode(drawing(2))])]) == []


def test_an_instruction_in_every_question_does_not_make_it_long(tmp_path: Path) -> None:
    instruction = " Please reason step by step, and put your final answer within \\boxed{}."
    train = [(f"Find {letter}.{instruction}", [encode(drawing(seed))]) for seed, letter in enumerate("uvwxyz")]
    test = [(f"Find {letter}.{instruction}", [encode(photo(seed))]) for seed, letter in enumerate("uvwxyz")]
    assert pairs(tmp_path, train, test) == []
    train, test = [(LONG + instruction, []), *train], [*test, (LONG + instruction, [])]
    assert pairs(tmp_path / "long", train, test) == [(0, 6, ("question exact",))]


def test_a_question_about_many_images_is_no_evidence(tmp_path: Path) -> None:
    def rows(first: int, count: int) -> list[CONTENT]:
        return [(LONG, [encode(drawing(seed))]) for seed in range(first, first + count)]

    for many in (leakage.ASKED_AT_MOST, leakage.ASKED_AT_MOST + 1):
        overlapping = pairs(tmp_path / f"{many}", rows(0, many), rows(100, 1))
        assert len(overlapping) == (many if many <= leakage.ASKED_AT_MOST else 0)


def test_rows_with_several_images_overlap_in_any_of_them(tmp_path: Path) -> None:
    a, b, c, d = (encode(drawing(seed)) for seed in range(4))
    smaller_b = encode(CHANGES["half size"](drawing(1)))
    train = [(SHORT, [a, b]), (SHORT, [c, c]), (SHORT, [])]
    test = [(SHORT, [d, smaller_b]), (SHORT, [c, a]), (SHORT, [])]
    assert pairs(tmp_path, train, test) == [
        (0, 0, ("image near",)),
        (0, 1, ("image exact",)),
        (1, 1, ("image exact",)),
    ]


def test_everything_that_two_rows_share_is_one_overlap(tmp_path: Path) -> None:
    row = (LONG, [encode(drawing(1))])
    assert pairs(tmp_path, [row], [row]) == [(0, 0, ("image exact", "question exact"))]


def mixed(seed: int) -> tuple[list[CONTENT], list[CONTENT]]:
    """Build a training and an evaluation set with planted copies, text-only rows and a row of two images."""
    images = [drawing(seed), photo(seed), drawing(seed + 1)]
    alter = list(CHANGES.values())
    train = [(question(30 + index), [encode(image)]) for index, image in enumerate(images)]
    test = [(question(90 + index), [encode(alter[index - 4](image))]) for index, image in enumerate(images)]
    extra = [(LONG, []), (long_question(5), []), (SHORT, [encode(photo(50)), encode(images[0])])]
    return [*train, *extra], [*test, ("So: " + long_question(5), []), (reworded(LONG), [encode(photo(51))])]


def test_neither_the_order_of_rows_nor_which_set_comes_first_changes_the_pairs(tmp_path: Path) -> None:
    train, test = mixed(7)
    plain = set(pairs(tmp_path / "plain", train, test))
    assert len(plain) == 6
    assert {(right, left, kinds) for left, right, kinds in pairs(tmp_path / "swapped", test, train)} == plain
    order = random.Random(0).sample(range(len(train)), len(train))
    shuffled = pairs(tmp_path / "shuffled", [train[row] for row in order], test[::-1])
    assert {(order[left], len(test) - 1 - right, kinds) for left, right, kinds in shuffled} == plain


def test_overlapping_rows_are_named_with_their_file(tmp_path: Path) -> None:
    image = encode(drawing(1))
    one = write(tmp_path / "one" / "a.parquet", [("first ?", [])])
    two = write(tmp_path / "two" / "a.parquet", [("second ?", []), (SHORT, [image])])
    test = write(tmp_path / "test.parquet", [(SHORT, [image])])
    (overlap,) = overlaps([one, two], [test])
    assert (overlap.train.file, overlap.train.row, overlap.train.id) == (str(two), 1, "a-1")
    assert (overlap.evaluation.file, overlap.evaluation.row, overlap.evaluation.id) == (str(test), 0, "test-0")


def test_sets_that_share_a_placeholder_are_refused_instead_of_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leakage, "PAIRS_AT_MOST", 8)
    rows = [(SHORT, [encode(drawing(1))])] * 3
    with pytest.raises(ValueError, match=r"more than 8 pairs of rows overlap, among them row 2 of .*the same"):
        pairs(tmp_path, rows, rows)
