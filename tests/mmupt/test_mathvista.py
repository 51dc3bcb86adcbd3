"""Every branch of MathVista's official rule on handmade rows; comments give the reasons."""

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from benchmark_questions import question
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import BENCHMARKS, mathvista
from mmupt.benchmarks.benchmark import as_question
from mmupt.benchmarks.mathvista import levenshtein

SIZES = ("larger than", "smaller than", "equal to")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("smaller than", True),  # the option's text
        ("B", True),  # its letter
        ("(B) whatever", True),  # the first letter in brackets, whatever follows
        ("(b)", True),  # converted to upper case
        ("b", False),  # not in brackets, so a text: "equal to" is the nearest option
        ("(C) or (B)", False),  # the first letter counts
        ("smaler then", True),  # the nearest text
        ("(E)", False),  # no option of that letter: the nearest to the text "E" is "equal to"
        ("", False),  # the option nearest to an empty answer is the shortest
    ],
)
def test_mathvista_finds_an_option_by_letter_text_or_nearest_text(answer: str, right: bool) -> None:
    assert mathvista.is_correct(answer, question("smaller than", SIZES, "multi_choice")) == right


@pytest.mark.parametrize(("metadata", "missing"), [("{}", "answer_type"), ('{"answer_type": "float"}', "precision")])
def test_a_missing_key_is_an_error_in_mathvista(metadata: str, missing: str) -> None:
    row = {"id": "q", "data_source": "mathvista", "prompt": [{"content": "how many ?"}], "question_type": "free_form"}
    with pytest.raises(ValueError, match=f"question 'q' has no '{missing}' in its metadata"):
        mathvista.is_correct("1", as_question(row, "1", metadata))


def test_mathvista_takes_the_first_nearest_option_for_a_missing_answer() -> None:
    assert mathvista.normalise(None, question("x", ("ab", "cd"), "multi_choice")) == "ab"
    assert mathvista.normalise("", question("x", SIZES, "multi_choice")) == "equal to"


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "precision", "right"),
    [
        ("5", "5", "integer", None, True),
        ("5.0", "5", "integer", None, True),  # int(float(x))
        ("5.9", "5", "integer", None, True),  # truncated, not rounded
        ("five", "5", "integer", None, False),  # not a number: no answer
        ("1e999", "5", "integer", None, False),  # infinite: no answer
        ("1.24", "1.2", "float", 1.0, True),  # rounded to the precision
        ("1.26", "1.2", "float", 1.0, False),
        ("1.2", "1.20", "float", 2.0, False),  # rounding gives "1.2", and texts are compared
        ("1/2", "0.5", "float", 1.0, False),  # float() does not read fractions
        ("[1, 2]", "[1, 2]", "list", None, True),  # lists as text
        ("[1,2]", "[1, 2]", "list", None, False),
        ("yes", "yes", "text", None, True),
        (None, "5", "integer", None, False),
    ],
)
def test_mathvista_compares_normalised_numbers_as_text(
    answer: str | None, truth: str, kind: str, precision: float | None, right: bool
) -> None:
    assert mathvista.is_correct(answer, question(truth, answer_type=kind, precision=precision)) == right


@pytest.mark.parametrize(
    ("answer", "truth", "metadata"),
    [
        (r"\boxed{\text{B}}", "osaka", {}),
        (r"\text{B}", "osaka", {}),
        (r"\textbf{(B)}", "osaka", {}),
        ("B.", "osaka", {}),
        ("b", "osaka", {}),
        ("**B**", "osaka", {}),
        ("B. osaka", "osaka", {}),
        ("B: tokyo", "osaka", {}),  # the letter counts
        ("Option B", "osaka", {}),
        (r"\text{osaka}", "osaka", {}),
        (r"5^\circ", "5", {"answer_type": "integer"}),
        ("5°", "5", {"answer_type": "integer"}),
        ("1{,}000", "1000", {"answer_type": "integer"}),
        ("1,000,000", "1000000", {"answer_type": "integer"}),
        (r"5\text{ cm}", "5", {"answer_type": "integer"}),
        ("x = 5", "5", {"answer_type": "integer"}),
        (r"$\approx 5$", "5", {"answer_type": "integer"}),
        ("$5", "5", {"answer_type": "integer"}),
        (r"50\%", "50", {"answer_type": "integer"}),
        (r"\frac12", "0.5", {"answer_type": "float", "precision": 1.0}),
        (r"\frac{1}{4}", "0.25", {"answer_type": "float", "precision": 2.0}),
        (r"\(1.5\)", "1.5", {"answer_type": "float", "precision": 1.0}),
        ("[1,2]", "[1, 2]", {"answer_type": "list"}),
    ],
)
def test_mathvista_cleans_an_answer_and_also_reports_the_bare_rule(
    answer: str, truth: str, metadata: dict[str, Any]
) -> None:
    cities = None if metadata else ("hong kong", "osaka", "shanghai")
    asked = replace(question(truth, cities, "multi_choice" if cities else "free_form", **metadata), id="q")
    verdicts = [rule.is_correct(answer, asked) for rule in BENCHMARKS["mathvista"].rules]
    assert verdicts[0] and verdicts[1] == mathvista.is_correct(answer, asked)
    bare = mathvista.cleaned(answer, asked)
    assert mathvista.cleaned(bare, asked) == bare and mathvista.is_correct(bare, asked)


def test_the_bare_rule_of_mathvista_rejects_wrapped_answers() -> None:
    assert not mathvista.is_correct(r"5\text{ cm}", question("5", answer_type="integer"))
    assert not mathvista.is_correct("B.", question("osaka", ("ab", "osaka"), "multi_choice"))


@pytest.mark.parametrize("answer", ["3 or 4", "5x", "A or B", "about five", ""])
def test_mathvista_cleans_only_single_letters_and_numbers(answer: str) -> None:
    asked = question("5", answer_type="integer")
    assert mathvista.cleaned(answer, asked) == answer
    assert mathvista.cleaned(answer, question("x", ("hong kong", "osaka"), "multi_choice")) == answer


@pytest.mark.parametrize(
    ("answer", "truth", "metadata"),
    [
        ("osaka" * 80_000, "osaka", {}),
        (f"5{' ' * 400_000}x", f"5{' ' * 400_000}x", {"answer_type": "text"}),
        (f"5{' ' * 400_000}\\circ", "5", {"answer_type": "integer"}),
        ("\\text{" * 50_000 + "5" + "}" * 50_000, "5", {"answer_type": "integer"}),
        ("\\(" * 80_000 + "B" + "\\)" * 80_000, "osaka", {}),
    ],
    ids=["text", "spaces", "degrees", "braces", "brackets"],
)
def test_mathvista_scores_long_answers_in_linear_time(answer: str, truth: str, metadata: dict[str, Any]) -> None:
    cities = None if metadata else ("hong kong", "osaka", "shanghai")
    asked = question(truth, cities, "multi_choice" if cities else "free_form", **metadata)
    start = time.process_time()
    assert mathvista.is_correct_cleaned(answer, asked)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        (r"\text{\mathbf{ 5 }}", "5"),
        (r"\(\text{$5$}\)", "5"),
        (r"\text{a}\text{b}", r"\text{a}\text{b}"),
        (r"\text{\text{a}b\text{c}}", r"\text{a}b\text{c}"),
        (r"\text{\(a}\)}", r"\text{\(a}\)}"),
        (r"\(a}\)", r"\(a}\)"),
        (r"\text{a{b}", "a{b"),
        (r"\text{}", ""),
    ],
)
def test_mathvista_removes_only_wrappers_of_the_whole_answer(answer: str, cleaned: str) -> None:
    assert mathvista.cleaned(answer, question("x", answer_type="text")) == cleaned


@given(st.text("^ {}\\$°5", max_size=12).map(lambda text: text.replace("\\", r"\circ")))
def test_mathvista_removes_degree_signs_anywhere(text: str) -> None:
    from_anywhere = r"\^?\s*\{?\s*\\(?:circ|degree)\s*\}?|[°º$£€%]|\\[$%]"
    assert mathvista.SIGNS.sub("", text) == re.sub(from_anywhere, "", text)


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_levenshtein_is_a_metric_bounded_by_the_lengths(one: str, other: str) -> None:
    distance = levenshtein(one, other)
    assert distance == levenshtein(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert levenshtein(f"x{one}", other) <= distance + 1
    if one and other:
        replaced = levenshtein(one[1:], other[1:]) + (one[0] != other[0])
        assert distance == min(levenshtein(one[1:], other) + 1, levenshtein(one, other[1:]) + 1, replaced)


def test_levenshtein_counts_insertions_deletions_and_replacements() -> None:
    assert [levenshtein("kitten", "sitting"), levenshtein("", "abc"), levenshtein("flaw", "lawn")] == [3, 3, 2]
