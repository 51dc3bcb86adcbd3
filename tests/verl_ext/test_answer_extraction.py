"""Extraction of answers from responses."""

import json
import time
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.answers import Extraction, extract_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{10}", "10"),
        (r"so \boxed{  10 }", "10"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{{a}{b{c}}} and {more}", "{a}{b{c}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed {5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed{1} then \fbox {2}", "2"),
        ("\\boxed{4\n2}", "4\n2"),
        ("} stray } braces } \\boxed{7} }", "7"),
        # An unclosed box leaves the last closed one, and nested boxes the outermost.
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{1} and \boxed{\frac{1}{2", "1"),
        (r"\boxed{3 + \boxed{4} = ", "4"),
        (r"\boxed{x = \boxed{5}}", r"x = \boxed{5}"),
        # Empty boxes are ignored.
        (r"\boxed{12}. As asked, it stands within \boxed{}.", "12"),
        (r"\boxed{12}, in \boxed{ }", "12"),
        (r"\boxed{12} \boxed{\text{}}", "12"),
        # A box may lack its braces.
        (r"so \boxed 5", "5"),
        (r"$\boxed 12.5$.", "12.5"),
        (r"\boxed{4}, no, \boxed -3", "-3"),
        (r"\boxed\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed B.", "B"),
    ],
)
def test_the_answer_is_the_trimmed_content_of_the_last_box(response: str, answer: str) -> None:
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        "",
        "so 10",
        "None",
        r"\boxed{",
        r"\boxed{}",
        r"\boxed{  }",
        r"\boxed{\text{}}",
        r"\boxed{?}",
        "boxed{5}",
        r"\boxed it",
    ],
)
def test_a_response_without_a_filled_box_has_no_answer(response: str) -> None:
    assert extract_answer(response) is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"$\boxed{1}$ or $\boxed{2}$.", "1 or 2"),
        (r"$x = \boxed{1}$ or $x = \boxed{2}$", "1 or 2"),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2 and 3"),
        (r"The integers are \boxed{-2} and \boxed{1}.", "-2 and 1"),
        (r"\boxed{1}. Or: \boxed{2}", "2"),
    ],
)
def test_boxes_joined_by_or_or_and_are_one_answer(response: str, answer: str) -> None:
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer> no <answer> 2 </answer>", "2"),
        ("<answer>1</answer> or <answer>2", "1"),
        ("<ANSWER>\nB\n</Answer>", "B"),
        (r"<answer>so \boxed{10}</answer>", "10"),
        ("<answer></answer>", None),
        ("<answer>3</answer><answer> </answer>", "3"),
        ("3</answer>", None),
        (r"\boxed{3}", None),
    ],
)
def test_the_answer_can_be_read_from_tags(response: str, answer: str | None) -> None:
    assert extract_answer(response, "answer_tag") == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 5. Good.", "5"),
        ("the answer is 5, no: the final answer is: $6.5$.", "6.5"),
        ("The answer is **B**", "B"),
        ("So the answer is\n\n12 cm\nas shown", "12 cm"),
        (r"The answer is \boxed{A. 12 cm}.", "A. 12 cm"),
        (r"The answer is \boxed{$x$.}", "$x$."),
        (r"The answer is 5. \boxed{7}", "5"),
        ("The answer is", None),
        ("The answer is.", None),
        ("5", None),
    ],
)
def test_the_answer_can_be_read_from_a_sentence(response: str, answer: str | None) -> None:
    assert extract_answer(response, "answer_is") == answer


@pytest.mark.parametrize("extraction", get_args(Extraction))
@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{" * 15_000,
        "\\boxed{" * 15_000 + "}" * 15_000,
        "{" * 50_000 + "}" * 50_000,
        "\\boxed" + " " * 100_000,
        "\\boxed    " * 10_000,
        "\\" * 100_000,
        "<answer>" * 12_000,
        "the answer is " * 7_000,
        "the" + " " * 100_000,
        "\\boxed{1}" + " " * 100_000 + "\\boxed{2}",
        "\\boxed{1}, " + " " * 100_000 + "but \\boxed{2}",
    ],
    ids=[
        "open boxes",
        "nested boxes",
        "nested braces",
        "one long gap",
        "many gaps",
        "backslashes",
        "open tags",
        "statements",
        "a gap in a statement",
        "a gap between boxes",
        "a gap after a comma",
    ],
)
def test_extraction_from_hostile_text_takes_linear_time(hostile: str, extraction: Extraction) -> None:
    start = time.perf_counter()
    extract_answer(hostile, extraction)
    assert time.perf_counter() - start < 2.0  # quadratic time would be minutes


@given(st.text(), st.sampled_from(get_args(Extraction)))
def test_answers_are_trimmed_and_never_empty_whatever_the_text(text: str, extraction: Extraction) -> None:
    wrapped = (f"\\boxed{{{text}", f"\\boxed{{{text}}}", f"<answer>{text}</answer>", f"The answer is {text}")
    for response in (text, *wrapped):
        answer = extract_answer(response, extraction)
        assert answer is None or (answer and answer == answer.strip())


def test_hand_checked_responses_give_the_expected_answers() -> None:
    lines = (Path(__file__).parent / "hand_checked" / "responses.jsonl").read_text().splitlines()
    checked = [json.loads(line) for line in lines]
    assert len(checked) >= 60
    wrong = {
        row["response"]: answer
        for row in checked
        if (answer := extract_answer(row["response"], row["rule"])) != row["answer"]
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "between", ["\n\nThen ", ", and then ", ". So ", ",\nStep 2: ", " + ", "\n\n", ", ", " and the perimeter is "]
)
def test_the_last_of_several_boxed_results_is_the_answer(between: str) -> None:
    response = f"First, $\\boxed{{4}}$ apples{between}$\\boxed{{5}}${between}$\\boxed{{9}}$. That is all.\n"
    assert extract_answer(response) == "9"
    assert extract_answer(response + "Let me check. " * 200) == "9"
