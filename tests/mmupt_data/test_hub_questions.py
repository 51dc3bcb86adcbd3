"""Placeholders of images and options of questions, as each data set of the hub writes them."""

from pathlib import Path

import pytest
from hub_files import rows_of
from hub_shaped import Record, write

from mmupt.benchmarks.wemath import options_of
from mmupt.datasets import data_set
from mmupt_data.hub import with_choices, with_placeholders

pytestmark = pytest.mark.usefixtures("no_internet")


def test_options_are_part_of_the_question_and_a_column_of_their_own(tmp_path: Path) -> None:
    for name, split, options in (
        ("mathvista", "testmini", ["larger", "smaller"]),
        ("mathvision", "test", ["A", "B", "C", "D", "E"]),
        ("thinklite", "train", ["1", "2"]),
        ("wemath", "testmini", ["12 cm", "5 cm^2", "v = 3; w = 2", "No correct answer"]),
    ):
        data_set(name).prepare(tmp_path / name, str(write(tmp_path / f"{name}-source", name)))
        row = rows_of(tmp_path / name / f"{split}.parquet")[1]
        assert row["choices"] == options and row["question_type"] == "multi_choice"
        assert row["prompt"][0]["content"].endswith(
            "\n".join(f"({c}) {o}" for c, o in zip("ABCDE", options, strict=False))
        )


def test_where_everything_is_drawn_mathverse_asks_for_what_is_in_the_picture(tmp_path: Path) -> None:
    data_set("mathverse").prepare(tmp_path / "made", str(write(tmp_path / "source", "mathverse")))
    questions = [row["prompt"][0]["content"] for row in rows_of(tmp_path / "made" / "testmini.parquet")]
    assert questions[0].startswith("<image>As shown in figure 0")
    assert questions[4] == "<image>Please directly answer the question in figure 4."


def test_placeholders_are_put_in_front_where_there_are_none() -> None:
    assert with_placeholders("what ?", 2) == "<image><image>what ?"
    assert with_placeholders("in <image1> and <image 2>", 2) == "in <image> and <image>"
    assert with_placeholders("what ?", 0) == "what ?"


@pytest.mark.parametrize("question", ["<image2> or <image1> ?", "<image1> and <image2> and <image1>", "only <image1>"])
def test_numbered_tags_that_do_not_name_each_image_in_its_order_are_text(question: str) -> None:
    assert with_placeholders(question, 2) == f"<image><image>{question}"


def test_options_are_told_apart_by_letters() -> None:
    assert with_choices("what ?", ("5", "6")) == "what ?\nChoices:\n(A) 5\n(B) 6"
    assert with_choices("what ?", None) == "what ?"


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("A. 12 cm;B. 5 cm", ("12 cm", "5 cm")),
        ("A. v = 3; w = 2; B. none", ("v = 3; w = 2", "none")),
        ("A. round ;P.;B. round ;Q.; C. No.", ("round ;P.", "round ;Q.", "No.")),
        ("A. to ;C.  ;B. from ;C.  ;C. none", ("to ;C.", "from ;C.", "none")),
        ("A. 10° B. 20° ;C. 30°; D. none", ("10°", "20°", "30°", "none")),
        ("A. 1 B. 2 C. 3 ;D. 4", ("1", "2", "3", "4")),
        # Of these nobody can be sure.
        ("A. round ;P.;B. No.; F. none", None),
        ("12 cm", None),
        ("B. 5;C. 6", None),
        ("A. 5;C. 6", None),
    ],
)
def test_options_of_wemath_are_told_apart_where_that_is_sure(option: str, choices: tuple[str, ...] | None) -> None:
    assert options_of(option) == choices


def test_options_of_wemath_that_cannot_be_told_apart_stay_as_they_came(tmp_path: Path) -> None:
    def misprint(records: list[Record]) -> None:
        records[0]["option"] = "A. 1;B. 2; F. none"

    data_set("wemath").prepare(tmp_path / "made", str(write(tmp_path / "source", "wemath", change=misprint)))
    row = rows_of(tmp_path / "made" / "testmini.parquet")[0]
    assert row["choices"] is None and row["question_type"] == "multi_choice"
    assert row["prompt"][0]["content"].endswith("\nChoices:\nA. 1;B. 2; F. none")


def test_mathvision_keeps_the_tags_of_a_merged_image_in_question_and_options(tmp_path: Path) -> None:
    def tag(records: list[Record]) -> None:
        records[0] |= {"question": "the cat <image1> runs from tree <image2> home", "options": []}
        records[1] |= {"question": "<image1>", "options": []}
        records[2] |= {"question": "which fits ?\n<image1>", "options": [f"<image{n}>" for n in range(2, 7)]}

    data_set("mathvision").prepare(tmp_path / "made", str(write(tmp_path / "source", "mathvision", change=tag)))
    rows = rows_of(tmp_path / "made" / "test.parquet")
    questions = [row["prompt"][0]["content"] for row in rows]
    assert questions[0] == "<image>the cat <image1> runs from tree <image2> home"
    assert questions[1] == "<image><image1>"
    assert questions[2].startswith("<image>which fits ?\n<image1>\nChoices:\n(A) <image2>\n(B) <image3>")
    assert rows[2]["choices"] == ["<image2>", "<image3>", "<image4>", "<image5>", "<image6>"]
