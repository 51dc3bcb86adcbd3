"""Tests of fingerprints: equal content has equal ones, and the cache is used only while its file is unchanged."""

# The tests contain mathematical symbols that look like letters.
# ruff: noqa: RUF001

import os
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, ImageOps

from benchmarks.random_groups import drawing, encode, photo, reworded
from mmupt_data import fingerprints
from mmupt_data.fingerprints import INK, VIEWS, RowFingerprint, cache_path, image_fingerprint, read_fingerprints
from mmupt_data.question_words import shingles, words
from mmupt_data.row_schema import PROMPT_SCHEMA, Row
from verl_ext.datasets import parquet_reader


def write(folder: Path, *rows: tuple[str, list[bytes]]) -> Path:
    """Write questions and images, without checking them, and return the file."""
    records = [
        Row(f"id{index}", "source", text, tuple(images), "kind", None) for index, (text, images) in enumerate(rows)
    ]
    folder.mkdir(exist_ok=True)
    file = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row.without_answer() for row in records], schema=PROMPT_SCHEMA), file)
    return file


def digest(image: Image.Image, format: str = "PNG") -> bytes:
    return image_fingerprint(encode(image, format)).digest


def digests(rows: list[RowFingerprint]) -> list[bytes]:
    return [image.digest for row in rows for image in row.images]


def test_the_same_pixels_have_the_same_digest_in_any_lossless_file() -> None:
    image = drawing(1)
    assert digest(image, "PNG") == digest(image, "BMP") == digest(image.convert("RGBA"))
    assert digest(image) != digest(drawing(2))


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    assert digest(Image.new("RGB", (20, 30))) != digest(Image.new("RGB", (30, 20)))


def test_a_transparent_background_counts_as_white() -> None:
    opaque = drawing(1)
    grey = np.asarray(opaque.convert("L"))
    transparent = Image.fromarray(np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey]), "RGBA")
    on_white, on_nothing = (image_fingerprint(encode(image)) for image in (opaque, transparent))
    assert np.array_equal(on_white.thumbnails, on_nothing.thumbnails)


def sketch(paper: str | tuple[int, int, int] = "white", ink: str = "black") -> Image.Image:
    """Draw a page of 400 x 300 px: a triangle of 120 x 90 px at (100, 150) with text above and below it."""
    image = Image.new("RGB", (400, 300), paper)
    pen = ImageDraw.Draw(image)
    pen.polygon([(100, 239), (219, 239), (160, 150)], outline=ink)
    pen.text((100, 100), "title", ink, ImageFont.load_default(20))
    pen.text((120, 270), "Fig. 1", ink, ImageFont.load_default(16))
    return image


def view(image: Image.Image, name: str) -> np.ndarray:
    return image_fingerprint(encode(image)).thumbnails[VIEWS.index(name)]


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX))


def nearly_equal(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two thumbnails differ only by rounding."""
    return bool((np.abs(first.astype(int) - second) <= 1).all())


def test_ink_is_what_differs_from_the_paper() -> None:
    image = sketch()
    box = ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > INK)).getbbox()
    assert nearly_equal(view(image, "whole"), thumbnail(image))
    assert nearly_equal(view(image, "ink"), thumbnail(image.crop(box)))
    assert nearly_equal(view(ImageOps.expand(image, (30, 0, 0, 90), "white"), "ink"), thumbnail(image.crop(box)))


@pytest.mark.parametrize(("paper", "ink"), [((244, 241, 232), "black"), ("black", "white"), ("navy", "yellow")])
def test_paper_may_have_any_colour(paper: str | tuple[int, int, int], ink: str) -> None:
    image = sketch(paper, ink)
    assert np.array_equal(view(ImageOps.expand(image, 30, paper), "ink"), view(image, "ink"))
    assert not np.array_equal(view(image, "ink"), view(image, "whole"))


def test_margins_may_differ_in_shade() -> None:
    image = photo(1)
    strip = ImageOps.expand(ImageOps.expand(image, (0, 0, 0, 40), "white"), (25, 0, 0, 0), "black")
    assert nearly_equal(view(strip, "ink"), thumbnail(image))


def test_scan_and_jpeg_noise_is_not_ink() -> None:
    noise = np.random.default_rng(0).normal(0, 5, (300, 400, 1))
    noisy = Image.fromarray((np.asarray(sketch((244, 241, 232)), float) + noise).clip(0, 255).astype(np.uint8))
    clean, scanned = (image_fingerprint(data) for data in (encode(sketch()), encode(noisy, "JPEG", quality=60)))
    assert scanned.aspects == pytest.approx(clean.aspects, rel=0.05)


def test_two_views_leave_out_the_title_and_the_caption() -> None:
    image = sketch()
    dark = ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > INK))
    below, above = dark.crop((0, 130, 400, 300)).getbbox(), dark.crop((0, 0, 400, 250)).getbbox()
    assert below is not None and above is not None
    untitled = image.crop((below[0], below[1] + 130, below[2], below[3] + 130))
    assert nearly_equal(view(image, "untitled"), thumbnail(untitled))
    assert nearly_equal(view(image, "uncaptioned"), thumbnail(image.crop(above)))


@pytest.mark.parametrize("rotated", [False, True])
def test_a_stripe_across_the_image_has_only_the_whole_view(rotated: bool) -> None:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).rectangle((0, 60, 300, 140), fill="black")
    fingerprint = image_fingerprint(encode(image.rotate(90, expand=True) if rotated else image))
    assert (fingerprint.aspects == fingerprint.aspects[0]).all() and fingerprint.aspects.all()


def test_a_line_above_text_is_a_separate_view() -> None:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).line((40, 30, 260, 30), fill="black", width=4)
    ImageDraw.Draw(image).text((100, 150), "below", "black", ImageFont.load_default(20))
    fingerprint = image_fingerprint(encode(image))
    assert (fingerprint.aspects > 0).all()
    assert fingerprint.aspects[VIEWS.index("uncaptioned")] > 40


@pytest.mark.parametrize("color", ["white", "black", (200, 30, 60)])
def test_an_empty_image_or_a_speck_has_only_the_whole_view(color: str | tuple[int, int, int]) -> None:
    empty = Image.new("RGB", (300, 200), color)
    speck = empty.copy()
    ImageDraw.Draw(speck).ellipse((50, 50, 58, 58), fill="gray")
    for image in (empty, speck, Image.new("RGB", (1, 1), color), Image.new("RGB", (900, 1), color)):
        fingerprint = image_fingerprint(encode(image))
        assert (fingerprint.thumbnails == thumbnail(image)).all()
        assert (fingerprint.aspects == np.float32(image.width / image.height)).all()


@pytest.mark.parametrize(
    "other",
    [
        "FIND the   area\nof ABCD. A. 2.5  B. 3",
        "<image>Find the area of ABCD: (A) 2.5 (B) 3",
        "find the area of $ABCD$? a: 2.5; b: 3",
        "<image1> Find the area of “ABCD”.\n(A) 2.5\n(B) 3\n",
        "Ｆind the area of ABCD （Ａ）２．５ （Ｂ）３",
    ],
)
def test_case_spacing_punctuation_tags_and_the_layout_of_options_are_ignored(other: str) -> None:
    assert words(other) == words("Find the area of ABCD. (A) 2.5 (B) 3")


@pytest.mark.parametrize(
    ("symbols", "spelled"),
    [
        ("In △ABC, ∠C = 90°", "In triangle ABC, angle C = 90 degrees"),
        ("In △ABC, ∠C = 90°", r"In $\triangle ABC$, $\angle C = 90^{\circ}$"),
        ("In ΔABC, ∡C = 90˚", r"In \Delta A B C, \measuredangle C = 90^\circ"),
        ("Rt△ABC, ∠1 = 25.0°", "Rttriangle ABC, angle 1 = 25 degree"),
        ("⊙O with chord AB", r"$\odot O$ with chord $\overline{AB}$"),
        ("⊙O with chord AB", "circle O with chord A B"),
        ("AB ⊥ CD, AB ∥ EF", "AB perpendicular  CD, AB parallel  EF"),
        ("AB ⊥ CD, AB ∥ EF", r"$AB \perp CD$, $AB \parallel EF$"),
        ("AB ⊥ CD, AB ∥ EF", "AB is perpendicular to CD, AB is parallel to EF"),
        ("AB ∥ CD", "AB // CD"),
        ("AB ∥ CD", "AB || CD"),
        ("△ABC ≅ △DEF, △ABC ∽ △GHK", r"\triangle ABC \cong \triangle DEF, \triangle ABC \sim \triangle GHK"),
        ("2π cm², 6×5, 6·5", r"$2\pi \mathrm{~cm}^{2}$, $6 \times 5$, $6 \cdot 5$"),
        ("θ ≤ 3/4, x = √3/2", r"$\theta \leq \frac{3}{4}$, $x = \dfrac{\sqrt{3}}{2}$"),
        ("A₁B₁ = 2x, y ≠ 0", r"$A_1B_1 = 2 x$, $y \neq 0$"),
        ("𝐴𝐵 = 3𝑥", "AB = 3x"),
        ("AB equals 3", "AB = 3"),
        ("\u200bFind\xa0x,\u2009then y", "Find x, then y"),
    ],
)
def test_symbols_equal_their_words_and_latex_commands(symbols: str, spelled: str) -> None:
    assert words(symbols) == words(spelled)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("x = 35", other) for other in ["x = 3.5", "x = -35", "x = 35 %", "x = 3/5", "x > 35", "y = 35", "x = 35°"]),
        ("∠A", "△A"),
        ("AB ⊥ CD", "AB ∥ CD"),
        ("x ≤ 3", "x ≥ 3"),
        (r"\frac{3}{4}", r"\frac{4}{3}"),
        ("3/4", "34"),
        ("√3", "3"),
        ("30", "3"),
        ("3.05", "3.5"),
        ("α", "β"),
        ("A is B", "AB"),
        (r"\sin x", r"\cos x"),
    ],
)
def test_different_numbers_and_symbols_give_different_words(first: str, second: str) -> None:
    assert words(first) != words(second)


@pytest.mark.parametrize("text", [r"\frac{" * 3000, r"\frac{\frac{1}{2}}{3}" * 300, "A " * 9000, "\\" * 9000])
def test_hostile_formulas_take_less_than_two_seconds(text: str) -> None:
    start = time.process_time()
    words(text)
    assert time.process_time() - start < 2


def test_two_chinese_characters_are_a_word() -> None:
    assert words("求三角形 ABC 的面积。") == ("求三", "角形", "abc", "的面", "积")


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_case_and_spacing_do_not_change_the_words(text: str) -> None:
    assert words(text.upper()) == words(text.lower()) == words(text)
    assert words(reworded("the area of this")) == words("the area of this")


@settings(max_examples=50)
@given(st.text())
def test_words_contain_no_spaces_and_have_at_most_one_shingle_per_position(text: str) -> None:
    sequence = words(text)
    assert not any(character.isspace() for word in sequence for character in word)
    assert len(shingles(sequence)) <= max(0, len(sequence) - 2)


def test_rows_and_images_are_read_in_order_over_several_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_reader, "ROWS_PER_BATCH", 2)
    first, second = encode(drawing(1)), encode(photo(1))
    rows = [("alone", []), ("<image>one", [first]), ("<image><image>two", [second, first])] * 3
    result = read_fingerprints(write(tmp_path, *rows))
    assert [row.id for row in result] == [f"id{index}" for index in range(len(rows))]
    assert [row.question for row in result] == [question for question, _ in rows]
    first_fingerprint, second_fingerprint = image_fingerprint(first), image_fingerprint(second)
    expected = [[], [first_fingerprint.digest], [second_fingerprint.digest, first_fingerprint.digest]] * 3
    assert [[image.digest for image in row.images] for row in result] == expected
    assert np.array_equal(result[2].images[0].aspects, second_fingerprint.aspects)
    assert np.array_equal(result[-1].images[-1].thumbnails, first_fingerprint.thumbnails)


def test_a_file_may_have_no_images_but_must_have_rows(tmp_path: Path) -> None:
    (row,) = read_fingerprints(write(tmp_path / "text", ("alone", [])))
    assert row.images == []
    with pytest.raises(ValueError, match="has no rows"):
        read_fingerprints(write(tmp_path / "empty"))


def test_unreadable_rows_of_a_file_with_other_columns_are_reported_and_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(encode(drawing(1)))
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt": ["what ?", "which ?"], "image": ["a.png", "gone.png"]}), file)
    rows = read_fingerprints(file)
    assert [row.question for row in rows] == ["<image>what ?", ""] and digests(rows) == [digest(drawing(1))]
    output = capsys.readouterr().out
    assert "row 1" in output and "gone.png" in output and "is not compared" in output


def test_the_question_consists_of_user_messages(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "what ?"}]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "prompt": [messages], "images": pa.array([None], pa.list_(pa.null()))}), file)
    assert [row.question for row in read_fingerprints(file)] == ["what ?"]


def refuse(encoded: bytes, near: bool) -> None:
    raise AssertionError("an image was decoded")


def test_fingerprints_are_cached_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("alone", []), ("<image>what ?", [encode(drawing(1))]))
    before = read_fingerprints(file)
    assert sorted(path.name for path in tmp_path.glob("*finger*")) == ["train.fingerprints.parquet"]
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    after = read_fingerprints(file)
    for row, old_row in zip(after, before, strict=True):
        assert (row.id, row.question) == (old_row.id, old_row.question)
        for image, old in zip(row.images, old_row.images, strict=True):
            assert image.digest == old.digest
            assert np.array_equal(image.aspects, old.aspects) and np.array_equal(image.thumbnails, old.thumbnails)


def test_fingerprints_of_a_changed_file_are_computed_again(tmp_path: Path) -> None:
    read_fingerprints(write(tmp_path, ("<image>what ?", [encode(drawing(1))])))
    file = write(tmp_path, ("<image>what ?", [encode(drawing(2))]), ("alone", []))
    assert digests(read_fingerprints(file)) == [digest(drawing(2))]


def change_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file, ns=(0, 0))


def change_version(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "VERSION", fingerprints.VERSION + 1)


def damage(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_path(file).write_bytes(cache_path(file).read_bytes()[:100])


@pytest.mark.parametrize("change", [change_time, change_version, damage])
def test_fingerprints_are_computed_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    read_fingerprints(file)
    change(file, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "image_fingerprint", refuse)
        with pytest.raises(AssertionError, match="an image was decoded"):
            read_fingerprints(file)
    assert digests(read_fingerprints(file)) == [digest(drawing(1))]


def test_in_a_read_only_folder_nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))

    def refuse_to_write(*_: object) -> None:
        raise PermissionError("read-only")

    # Changing the folder's permissions would not stop tests that run as root.
    monkeypatch.setattr(os, "replace", refuse_to_write)
    assert digests(read_fingerprints(file)) == [digest(drawing(1))]
    assert not list(tmp_path.glob("*finger*"))


@pytest.mark.parametrize("damaged", [b"", b"no image", encode(drawing(1))[:300]])
def test_an_image_that_cannot_be_decoded_is_reported_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: bytes
) -> None:
    file = write(tmp_path, ("alone", []), ("<image><image>what ?", [damaged, encode(drawing(2))]))
    rows = read_fingerprints(file)
    assert rows[0].images == [] and digests(rows) == [digest(drawing(2))]
    output = capsys.readouterr().out
    assert output.startswith(f"{file}: row 1 ('id1'): an image cannot be decoded")
    read_fingerprints(file)
    assert capsys.readouterr().out == output


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    buffer = BytesIO()
    pq.write_table(pa.table({"id": ["a"], "images": [[]]}), buffer)
    file = tmp_path / "a.parquet"
    file.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))} has no column prompt"):
        read_fingerprints(file)


def test_thumbnails_are_computed_for_the_near_search_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    (exact,) = read_fingerprints(file, near=False)[0].images
    assert exact.digest == digest(drawing(1)) and not exact.thumbnails.any()
    (near,) = read_fingerprints(file)[0].images
    assert near.digest == exact.digest and near.aspects.all() and near.thumbnails.any()
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    assert read_fingerprints(file, near=False)[0].images[0].thumbnails.any()
