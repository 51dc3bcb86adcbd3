"""Tests of image placeholders and answer options, which every data set of the hub writes differently."""

from pathlib import Path

import pytest
from hub_files import rows_of
from hub_shaped import Record, write

from mmupt.benchmarks.wemath import options_of
from mmupt.datasets import data_set
from mmupt_data.hub import with_choices, with_placeholders

pytestmark = pytest.mark.usefixtures("no_internet")


def test_options_are_in_the_question_and_in_a_column(tmp_path: Path) -> None:
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


def test_vision_only_rows_of_mathverse_ask_with_query_wo(tmp_path: Path) -> None:
    data_set("mathverse").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "mathverse")))
    questions = [row["prompt"][0]["content"] for row in rows_of(tmp_path / "prepared" / "testmini.parquet")]
    assert questions[0].startswith("<image>As shown in figure 0")
    assert questions[4] == "<image>Please directly answer the question in figure 4."


def test_placeholders_are_prepended_unless_the_question_has_them() -> None:
    assert with_placeholders("what ?", 2) == "<image><image>what ?"
    assert with_placeholders("in <image1> and <image 2>", 2) == "in <image> and <image>"
    assert with_placeholders("what ?", 0) == "what ?"


@pytest.mark.parametrize("question", ["<image2> or <image1> ?", "<image1> and <image2> and <image1>", "only <image1>"])
def test_numbered_tags_are_text_unless_they_name_every_image_in_order(question: str) -> None:
    assert with_placeholders(question, 2) == f"<image><image>{question}"


def test_options_get_letters() -> None:
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
        # Ambiguous.
        ("A. round ;P.;B. No.; F. none", None),
        ("12 cm", None),
        ("B. 5;C. 6", None),
        ("A. 5;C. 6", None),
    ],
)
def test_options_of_wemath_are_split_unless_ambiguous(option: str, choices: tuple[str, ...] | None) -> None:
    assert options_of(option) == choices


def test_ambiguous_options_of_wemath_stay_unsplit(tmp_path: Path) -> None:
    def misprint(records: list[Record]) -> None:
        records[0]["option"] = "A. 1;B. 2; F. none"

    data_set("wemath").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "wemath", change=misprint)))
    row = rows_of(tmp_path / "prepared" / "testmini.parquet")[0]
    assert row["choices"] is None and row["question_type"] == "multi_choice"
    assert row["prompt"][0]["content"].endswith("\nChoices:\nA. 1;B. 2; F. none")


def test_mathvision_keeps_the_tags_of_a_merged_image_in_question_and_options(tmp_path: Path) -> None:
    def tag(records: list[Record]) -> None:
        records[0] |= {"question": "the cat <image1> runs from tree <image2> home", "options": []}
        records[1] |= {"question": "<image1>", "options": []}
        records[2] |= {"question": "which fits ?\n<image1>", "options": [f"<image{n}>" for n in range(2, 7)]}

    data_set("mathvision").prepare(tmp_path / "prepared", str(write(tmp_path / "source", "mathvision", change=tag)))
    rows = rows_of(tmp_path / "prepared" / "test.parquet")
    questions = [row["prompt"][0]["content"] for row in rows]
    assert questions[0] == "<image>the cat <image1> runs from tree <image2> home"
    assert questions[1] == "<image><image1>"
    assert questions[2].startswith("<image>which fits ?\n<image1>\nChoices:\n(A) <image2>\n(B) <image3>")
    assert rows[2]["choices"] == ["<image2>", "<image3>", "<image4>", "<image5>", "<image6>"]
