"""Tests of fingerprints: what is the same has the same ones, and they are kept only as long as their file stays."""

# Mathematical signs look like letters, and are meant.
# ruff: noqa: RUF001

import os
import re
import time
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
    """A file of these questions and images, bad ones among them."""
    made = [Row(f"id{index}", "source", text, tuple(images), "kind", None) for index, (text, images) in enumerate(rows)]
    folder.mkdir(exist_ok=True)
    file = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row.without_answer() for row in made], schema=PROMPT_SCHEMA), file)
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


def test_drawings_on_nothing_are_drawings_on_white() -> None:
    opaque = drawing(1)
    grey = np.asarray(opaque.convert("L"))
    transparent = Image.fromarray(np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey]), "RGBA")
    one, other = (image_fingerprint(encode(image)) for image in (opaque, transparent))
    assert np.array_equal(one.thumbnails, other.thumbnails)


def sketch(paper: str | tuple[int, int, int] = "white", ink: str = "black") -> Image.Image:
    """A page of 400 x 300 px with a triangle, 120 wide and 90 high, at 100, 150, and letters above and below it."""
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


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether thumbnails differ by rounding alone."""
    return bool((np.abs(one.astype(int) - other) <= 1).all())


def test_ink_is_what_differs_from_the_paper() -> None:
    image = sketch()
    box = ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > INK)).getbbox()
    assert same(view(image, "whole"), thumbnail(image))
    assert same(view(image, "ink"), thumbnail(image.crop(box)))
    assert same(view(ImageOps.expand(image, (30, 0, 0, 90), "white"), "ink"), thumbnail(image.crop(box)))


@pytest.mark.parametrize(("paper", "ink"), [((244, 241, 232), "black"), ("black", "white"), ("navy", "yellow")])
def test_paper_has_any_colour(paper: str | tuple[int, int, int], ink: str) -> None:
    image = sketch(paper, ink)
    assert np.array_equal(view(ImageOps.expand(image, 30, paper), "ink"), view(image, "ink"))
    assert not np.array_equal(view(image, "ink"), view(image, "whole"))


def test_each_side_has_a_margin_of_its_own_shade() -> None:
    image = photo(1)
    strip = ImageOps.expand(ImageOps.expand(image, (0, 0, 0, 40), "white"), (25, 0, 0, 0), "black")
    assert same(view(strip, "ink"), thumbnail(image))


def test_noise_of_scans_and_jpeg_is_no_ink() -> None:
    noise = np.random.default_rng(0).normal(0, 5, (300, 400, 1))
    noisy = Image.fromarray((np.asarray(sketch((244, 241, 232)), float) + noise).clip(0, 255).astype(np.uint8))
    clean, scanned = (image_fingerprint(data) for data in (encode(sketch()), encode(noisy, "JPEG", quality=60)))
    assert scanned.aspects == pytest.approx(clean.aspects, rel=0.05)


def test_views_without_what_stands_above_and_below_the_rest() -> None:
    image = sketch()
    dark = ImageOps.invert(image.convert("L")).point(lambda value: 255 * (value > INK))
    below, above = dark.crop((0, 130, 400, 300)).getbbox(), dark.crop((0, 0, 400, 250)).getbbox()
    assert below is not None and above is not None
    untitled = image.crop((below[0], below[1] + 130, below[2], below[3] + 130))
    assert same(view(image, "untitled"), thumbnail(untitled))
    assert same(view(image, "uncaptioned"), thumbnail(image.crop(above)))


@pytest.mark.parametrize("turned", [False, True])
def test_a_stripe_from_side_to_side_has_no_view_but_the_whole(turned: bool) -> None:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).rectangle((0, 60, 300, 140), fill="black")
    found = image_fingerprint(encode(image.rotate(90, expand=True) if turned else image))
    assert (found.aspects == found.aspects[0]).all() and found.aspects.all()


def test_a_line_above_the_rest_is_a_view_of_its_own() -> None:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).line((40, 30, 260, 30), fill="black", width=4)
    ImageDraw.Draw(image).text((100, 150), "below", "black", ImageFont.load_default(20))
    found = image_fingerprint(encode(image))
    assert (found.aspects > 0).all()
    assert found.aspects[VIEWS.index("uncaptioned")] > 40


@pytest.mark.parametrize("color", ["white", "black", (200, 30, 60)])
def test_an_empty_image_or_a_speck_has_no_view_but_the_whole(color: str | tuple[int, int, int]) -> None:
    empty = Image.new("RGB", (300, 200), color)
    speck = empty.copy()
    ImageDraw.Draw(speck).ellipse((50, 50, 58, 58), fill="gray")
    for image in (empty, speck, Image.new("RGB", (1, 1), color), Image.new("RGB", (900, 1), color)):
        found = image_fingerprint(encode(image))
        assert (found.thumbnails == thumbnail(image)).all()
        assert (found.aspects == np.float32(image.width / image.height)).all()


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
def test_case_spacing_punctuation_tags_and_the_layout_of_options_do_not_count(other: str) -> None:
    assert words(other) == words("Find the area of ABCD. (A) 2.5 (B) 3")


@pytest.mark.parametrize("other", ["x = 3.5", "x = -35", "x = 35 %", "x = 3/5", "x > 35", "y = 35", "x = 35°"])
def test_numbers_and_signs_count(other: str) -> None:
    assert words("x = 35") != words(other)


@pytest.mark.parametrize(
    ("signs", "spelled"),
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
def test_signs_are_the_words_and_latex_commands_that_stand_for_them(signs: str, spelled: str) -> None:
    assert words(signs) == words(spelled)


@pytest.mark.parametrize(
    ("one", "other"),
    [
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
def test_what_signs_say_still_counts(one: str, other: str) -> None:
    assert words(one) != words(other)


@pytest.mark.parametrize("text", [r"\frac{" * 3000, r"\frac{\frac{1}{2}}{3}" * 300, "A " * 9000, "\\" * 9000])
def test_hostile_formulas_take_no_time(text: str) -> None:
    start = time.process_time()
    words(text)
    assert time.process_time() - start < 2


def test_two_chinese_characters_are_a_word() -> None:
    assert words("求三角形 ABC 的面积。") == ("求三", "角形", "abc", "的面", "积")


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_rewording_by_case_and_spacing_leaves_the_words(text: str) -> None:
    assert words(text.upper()) == words(text.lower()) == words(text)
    assert words(reworded("the area of this")) == words("the area of this")


@settings(max_examples=50)
@given(st.text())
def test_any_text_has_words_and_as_many_shingles_as_places_at_most(text: str) -> None:
    found = words(text)
    assert not any(character.isspace() for word in found for character in word)
    assert len(shingles(found)) <= max(0, len(found) - 2)


def test_rows_and_images_are_read_in_order_over_several_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_reader, "ROWS_PER_BATCH", 2)
    one, other = encode(drawing(1)), encode(photo(1))
    rows = [("alone", []), ("<image>one", [one]), ("<image><image>two", [other, one])] * 3
    found = read_fingerprints(write(tmp_path, *rows))
    assert [row.id for row in found] == [f"id{index}" for index in range(len(rows))]
    assert [row.question for row in found] == [question for question, _ in rows]
    looks = image_fingerprint(one), image_fingerprint(other)
    expected = [[], [looks[0].digest], [looks[1].digest, looks[0].digest]] * 3
    assert [[image.digest for image in row.images] for row in found] == expected
    assert np.array_equal(found[2].images[0].aspects, looks[1].aspects)
    assert np.array_equal(found[-1].images[-1].thumbnails, looks[0].thumbnails)


def test_a_file_without_images_has_none_and_one_without_rows_is_refused(tmp_path: Path) -> None:
    (found,) = read_fingerprints(write(tmp_path / "text", ("alone", [])))
    assert found.images == []
    with pytest.raises(ValueError, match="has no rows"):
        read_fingerprints(write(tmp_path / "empty"))


def test_somebody_elses_file_is_compared_but_for_rows_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(encode(drawing(1)))
    file = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt": ["what ?", "which ?"], "image": ["a.png", "gone.png"]}), file)
    found = read_fingerprints(file)
    assert [row.question for row in found] == ["<image>what ?", ""] and digests(found) == [digest(drawing(1))]
    assert "row 1" in (said := capsys.readouterr().out) and "gone.png" in said and "is not compared" in said


def test_only_what_the_user_says_is_the_question(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "what ?"}]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "prompt": [messages], "images": pa.array([None], pa.list_(pa.null()))}), file)
    assert [row.question for row in read_fingerprints(file)] == ["what ?"]


def refuse(encoded: bytes, near: bool) -> None:
    raise AssertionError("an image is looked at")


def test_fingerprints_are_kept_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("alone", []), ("<image>what ?", [encode(drawing(1))]))
    before = read_fingerprints(file)
    assert sorted(path.name for path in tmp_path.glob("*finger*")) == ["train.fingerprints.parquet"]
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    after = read_fingerprints(file)
    for one, other in zip(after, before, strict=True):
        assert (one.id, one.question) == (other.id, other.question)
        for image, same in zip(one.images, other.images, strict=True):
            assert image.digest == same.digest
            assert np.array_equal(image.aspects, same.aspects) and np.array_equal(image.thumbnails, same.thumbnails)


def test_fingerprints_of_a_file_that_changed_are_made_anew(tmp_path: Path) -> None:
    read_fingerprints(write(tmp_path, ("<image>what ?", [encode(drawing(1))])))
    file = write(tmp_path, ("<image>what ?", [encode(drawing(2))]), ("alone", []))
    assert digests(read_fingerprints(file)) == [digest(drawing(2))]


def test_fingerprints_of_a_file_with_another_time_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    read_fingerprints(file)
    os.utime(file, ns=(0, 0))
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    with pytest.raises(AssertionError, match="an image is looked at"):
        read_fingerprints(file)


def test_fingerprints_of_another_version_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    read_fingerprints(file)
    monkeypatch.setattr(fingerprints, "VERSION", fingerprints.VERSION + 1)
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    with pytest.raises(AssertionError, match="an image is looked at"):
        read_fingerprints(file)


def test_damaged_fingerprints_are_made_anew(tmp_path: Path) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    read_fingerprints(file)
    cache_path(file).write_bytes(cache_path(file).read_bytes()[:100])
    assert digests(read_fingerprints(file)) == [digest(drawing(1))]


def test_a_folder_that_cannot_be_written_to_means_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))

    def refuse_to_write(*_: object) -> None:
        raise PermissionError("read-only")

    # Root may write anywhere, so that a folder without write permission would prove nothing.
    monkeypatch.setattr(os, "replace", refuse_to_write)
    assert digests(read_fingerprints(file)) == [digest(drawing(1))]
    assert not list(tmp_path.glob("*finger*"))


@pytest.mark.parametrize("damaged", [b"", b"no image", encode(drawing(1))[:300]])
def test_an_image_that_cannot_be_decoded_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: bytes
) -> None:
    file = write(tmp_path, ("alone", []), ("<image><image>what ?", [damaged, encode(drawing(2))]))
    found = read_fingerprints(file)
    assert found[0].images == [] and digests(found) == [digest(drawing(2))]
    said = capsys.readouterr().out
    assert said.startswith(f"{file}: row 1 ('id1'): an image cannot be decoded")
    read_fingerprints(file)
    assert capsys.readouterr().out == said


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    buffer = BytesIO()
    pq.write_table(pa.table({"id": ["a"], "images": [[]]}), buffer)
    file = tmp_path / "a.parquet"
    file.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))} has no column prompt"):
        read_fingerprints(file)


def test_what_only_exact_copies_need_is_kept_apart_from_what_near_ones_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, ("<image>what ?", [encode(drawing(1))]))
    (exact,) = read_fingerprints(file, near=False)[0].images
    assert exact.digest == digest(drawing(1)) and not exact.thumbnails.any()
    (whole,) = read_fingerprints(file)[0].images
    assert whole.digest == exact.digest and whole.aspects.all() and whole.thumbnails.any()
    monkeypatch.setattr(fingerprints, "image_fingerprint", refuse)
    assert read_fingerprints(file, near=False)[0].images[0].thumbnails.any()
