"""Every branch of MathVerse's rule on handmade rows; comments give the reasons."""

import pytest
from benchmark_questions import question

from mmupt.benchmarks import mathverse

ASKED = "<image>Find x.\nChoices:\nA:30°\nB:45°\nC:60°\nD:90°"

BEARING = "<image>Find the bearing.\nChoice:\nA. 090^\\circ T\nB. 180^\\circ T"

UNTRUE = "<image>True or false: it is.\nChoice:\nA. True\nB. False"

TWO = "<image>Which two are negative? Choose 2 answers:\nChoices:\nA:x\nB:y\nC:-x\nD:-y"

GAPS = "<image>Choose all answers that apply:\nChoices:\nA:It is\nlong.\nB:\nC:It is short.\nD:"


@pytest.mark.parametrize(
    ("asked", "answer", "truth", "right"),
    [
        (ASKED, "C", "C", True),
        (ASKED, "(C)", "C", True),
        (ASKED, "60°", "C", True),  # the option's text
        (ASKED, "B", "C", False),
        (ASKED, "C", "(C)", True),  # irregular truths still name the letter
        (ASKED, "C", "C.", True),
        (ASKED, None, "C", False),
        (BEARING, "A", "090^\\circ T", True),  # the truth is the text of an option
        (BEARING, "B", "090^\\circ T", False),
        (UNTRUE, "B", "False", True),
        (UNTRUE, "False", "False", True),
        (UNTRUE, "A", "False", False),
        (ASKED, "False", "False", True),  # neither letter nor option
        (TWO, "C, D", "C\nD", True),
        (TWO, "(C) and (D)", "C\nD", True),
        (TWO, "CD", "C\nD", True),
        (TWO, "C", "C\nD", False),  # the authors' judge requires a complete match
        (TWO, "B, C, D", "C\nD", False),
        (GAPS, "C", "C", True),  # empty options, and an option of two lines
        (GAPS, "It is short.", "C", True),
        (GAPS, "A", "C", False),
        (GAPS, "The answers are A and C.", "C", False),
    ],
)
def test_mathverse_accepts_letters_and_option_texts_and_reads_irregular_truths(
    asked: str, answer: str | None, truth: str, right: bool
) -> None:
    assert mathverse.is_correct(answer, question(truth, None, "multi-choice", asked)) == right


def test_mathverse_reads_empty_and_multi_line_options() -> None:
    assert mathverse.options(question("C", None, "multi-choice", GAPS)) == ["It is\nlong.", "", "It is short.", ""]
    assert mathverse.options(question("A", None, "multi-choice", BEARING)) == ["090^\\circ T", "180^\\circ T"]


def test_mathverse_drops_the_label_of_a_value() -> None:
    for truth in (r"Area $=9 \pi$", r"Area of sector $=9 \pi$"):
        for answer in (r"9\pi", r"Area = 9\pi", truth):
            assert mathverse.is_correct(answer, question(truth, kind="free-form")), (answer, truth)
        assert not mathverse.is_correct(r"8\pi", question(truth, kind="free-form"))
    assert mathverse.unlabelled("y = 3x + 1") == "y = 3x + 1"


def test_mathverse_compares_free_answers_by_value() -> None:
    assert mathverse.is_correct(r"\frac{1}{2}", question("0.5", kind="free-form"))
    assert not mathverse.is_correct("A", question("0.5", kind="free-form"))


def test_mathverse_finds_options_in_the_question_for_the_judge() -> None:
    asked = question("A", None, "multi-choice", "<image>Look.", question_for_eval="x?\nChoices:\nA:1\nB:2")
    assert mathverse.options(asked) == ["1", "2"]
    assert mathverse.options(question("A", None, "multi-choice", "Choices:\nA:1\nC:2")) is None
