"""Tests of the row checks: every kind of bad row is found and named, and a good row has no problem."""

import io
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import BAD, GOOD, picture
from PIL import Image

from mmupt_data.row_problems import HARMLESS, Duplicates, image_problems, problems_of, text_problems
from mmupt_data.row_schema import NO_QUESTION, Row
from verl_ext.images import MAX_PIXELS

ROW = Row("a", "source", "<image>what ?", (GOOD,), "kind", "1")


def kinds(row: Row) -> list[str]:
    return [problem.kind for problem in problems_of(row)]


def test_a_good_row_has_no_problem_with_images_of_any_common_form() -> None:
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert problems_of(replace(ROW, images=(picture(form=form),))) == []


def test_text_only_is_a_good_row() -> None:
    assert problems_of(replace(ROW, question="what is 1 + 1 ?", images=())) == []


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_found_and_named_by_its_place(kind: str) -> None:
    row = replace(ROW, question="<image><image>what ?", images=(GOOD, BAD[kind]))
    (problem,) = problems_of(row)
    assert problem.kind == kind and problem.detail.startswith("image 1")


def test_a_truncated_image_is_found_at_any_length() -> None:
    encoded = picture(size=(120, 90), form="JPEG")
    assert image_problems(encoded, "image 0") == []
    for length in range(0, len(encoded) - 2, len(encoded) // 20):
        assert image_problems(encoded[:length], "image 0")


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert [problem.kind for problem in image_problems(bomb, "image 0")] == ["huge image"]


@pytest.mark.parametrize("question", ["what ?", "<image><image>what ?"])
def test_too_few_and_too_many_image_tags_are_reported(question: str) -> None:
    (problem,) = problems_of(replace(ROW, question=question))
    assert problem.kind == "image tags" and "1 image" in problem.detail


@pytest.mark.parametrize("question", ["<image>", "<image> \n"])
def test_a_row_without_a_question_is_refused_unless_its_type_says_so(question: str) -> None:
    assert kinds(replace(ROW, question=question)) == ["no question"]
    assert kinds(replace(ROW, question=question, question_type=NO_QUESTION)) == []


@pytest.mark.parametrize("character", ["\ufffd", "\x00", "\ud800", "\x1b"])
def test_characters_of_broken_text_are_named(character: str) -> None:
    (problem,) = text_problems(f"an angle of 90{character}", None)
    assert problem.kind == "broken text" and f"U+{ord(character):04X}" in problem.detail
    assert [problem.kind for problem in text_problems("what ?", ("5", f"6{character}"))] == ["broken text"]


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffd")))
def test_other_text_has_no_problem(question: str) -> None:
    assert text_problems(question, None) == []


@pytest.mark.parametrize("choices", [(), ("5",), ("5", " ")])
def test_at_least_two_options_are_required_and_none_may_be_empty(choices: tuple[str, ...]) -> None:
    assert kinds(replace(ROW, choices=choices)) == ["choices"]


def test_a_row_is_a_duplicate_when_images_question_and_options_are_the_same_up_to_spacing() -> None:
    duplicates = Duplicates()
    assert duplicates.check(ROW) == []
    (problem,) = duplicates.check(replace(ROW, id="b", question="<image>what  ?\n"))
    assert problem.kind == "duplicate" and "row a" in problem.detail
    others = (
        replace(ROW, id="c", question="<image>who ?"),
        replace(ROW, id="d", images=(picture(1),)),
        replace(ROW, id="e", images=(GOOD, picture(1))),
        replace(ROW, id="f", choices=("1", "2")),
    )
    assert not any(duplicates.check(other) for other in others)


@given(st.binary(max_size=200))
def test_the_image_check_survives_any_bytes_and_accepts_only_those_that_decode(content: bytes) -> None:
    problems = image_problems(content, "image 0")
    if not problems:
        Image.open(io.BytesIO(content)).load()


@pytest.mark.parametrize("text", ["<video>", "<audio>", "<|image_pad|>", "<|im_end|>", "</s>", "<tool_call>"])
def test_control_text_is_reported_but_harmless(text: str) -> None:
    for row in (
        replace(ROW, question=f"<image>what is {text} ?"),
        replace(ROW, choices=("5", text)),
    ):
        (problem,) = problems_of(row)
        assert problem.kind == "control text" and repr(text) in problem.detail
        assert problem.kind in HARMLESS
