"""Every branch of the official rules, on rows made by hand; the reason for each expectation stands beside it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.mmupt.benchmarks import BENCHMARKS, Question, mathverse, mathvision, mathvista, wemath
from recipes.mmupt.benchmarks.mathvista import levenshtein
from verl_ext.answers import number_of


def question(
    truth: str, choices: tuple[str, ...] | None = None, kind: str = "free_form", text: str = "what ?", **metadata: Any
) -> Question:
    return Question("q", "benchmark", text, kind, choices, truth, metadata)


SIZES = ("larger than", "smaller than", "equal to")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("smaller than", True),  # the option's text
        ("B", True),  # its letter
        ("(B) whatever", True),  # the first letter in brackets, whatever follows
        ("(b)", True),  # made upper-case
        ("b", False),  # no letter in brackets, so a text: nearest are all equally far but "equal to" is shortest
        ("(C) or (B)", False),  # the first one counts
        ("smaler then", True),  # the nearest text
        ("(E)", False),  # no option of that letter: the nearest to the text "E" is "equal to"
        ("", False),  # an empty answer takes the nearest, too: the shortest option
    ],
)
def test_mathvista_takes_an_option_by_letter_by_text_and_by_the_nearest_text(answer: str, right: bool) -> None:
    assert mathvista.is_correct(answer, question("smaller than", SIZES, "multi_choice")) == right


def test_mathvista_gives_the_nearest_option_even_for_no_answer_the_first_of_equals() -> None:
    assert mathvista.normalise(None, question("x", ("ab", "cd"), "multi_choice")) == "ab"
    assert mathvista.normalise("", question("x", SIZES, "multi_choice")) == "equal to"


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "precision", "right"),
    [
        ("5", "5", "integer", None, True),
        ("5.0", "5", "integer", None, True),  # int(float(x))
        ("5.9", "5", "integer", None, True),  # cut off, not rounded
        ("five", "5", "integer", None, False),  # no number: no answer
        ("1e999", "5", "integer", None, False),  # infinite: no answer
        ("1.24", "1.2", "float", 1.0, True),  # rounded to the precision
        ("1.26", "1.2", "float", 1.0, False),
        ("1.2", "1.20", "float", 2.0, False),  # "1.2" is what round gives, and texts are compared
        ("1/2", "0.5", "float", 1.0, False),  # float() reads no fraction
        ("[1, 2]", "[1, 2]", "list", None, True),  # lists as text
        ("[1,2]", "[1, 2]", "list", None, False),
        ("yes", "yes", "text", None, True),
        (None, "5", "integer", None, False),
    ],
)
def test_mathvista_compares_the_texts_of_normalised_numbers(
    answer: str | None, truth: str, kind: str, precision: float | None, right: bool
) -> None:
    assert mathvista.is_correct(answer, question(truth, answer_type=kind, precision=precision)) == right


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_distance_of_texts_is_a_metric_bounded_by_their_lengths(one: str, other: str) -> None:
    distance = levenshtein(one, other)
    assert distance == levenshtein(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert levenshtein(f"x{one}", other) <= distance + 1


def test_the_distance_of_texts_counts_insertions_deletions_and_replacements() -> None:
    assert [levenshtein("kitten", "sitting"), levenshtein("", "abc"), levenshtein("flaw", "lawn")] == [3, 3, 2]


FIVE = ("10", "20", r"\frac{1}{2}", "40", "50")


@pytest.mark.parametrize(
    ("answer", "truth", "choices", "right"),
    [
        ("B", "B", FIVE, True),  # the letter
        ("b", "B", FIVE, True),  # lower-cased
        ("20", "B", FIVE, True),  # the option's text
        ("20.0", "B", FIVE, True),  # the option's text as a number
        ("0.5", "C", FIVE, True),  # LaTeX evaluated
        ("C", "B", FIVE, False),
        ("", "B", FIVE, False),  # empty is wrong
        ("  ", "7", None, False),
        (None, "7", None, False),
        ("7", "7", None, True),
        ("7.0", "7", None, True),
        ("7.004", "7", None, True),  # equal to two decimals
        ("7.006", "7", None, False),
        ("-0.001", "0", None, True),
        (r"\frac{7}{2}", "3.5", None, True),
        ("(1, 2)", "(1,2)", None, True),  # element by element
        ("(1.001,2)", "(1,2)", None, True),
        ("(2,1)", "(1,2)", None, False),
        ("[1,2]", "(1,2)", None, False),  # other brackets
        ("(a,2)", "(A, 2.0)", None, True),  # what is no number as text
        ("(1)", "1", None, True),  # brackets around one number are no tuple
        ("seven", "7", None, False),
        # As the authors clean every answer before they compare it.
        ("(B)", "B", FIVE, True),
        (r"\text{B}", "B", FIVE, True),
        ("b.", "B", FIVE, True),
        ("x=7", "7", None, True),
        (r"60^\circ", "60", None, True),
        (r"50\%", "50", None, True),
    ],
)
def test_mathvision_takes_a_letter_an_options_text_or_a_number_to_two_decimals(
    answer: str | None, truth: str, choices: tuple[str, ...] | None, right: bool
) -> None:
    assert mathvision.is_correct(answer, question(truth, choices)) == right


ASKED = "<image>Find x.\nChoices:\nA:30°\nB:45°\nC:60°\nD:90°"


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("C", "C", True),
        ("(C)", "C", True),
        ("60°", "C", True),  # the option's text
        ("B", "C", False),
        ("C", "(C)", True),  # dirty truths say the letter all the same
        ("C", "C.", True),
        ("D", "C\nD", True),  # either of two
        ("B", "C\nD", False),
        ("False", "False", True),  # no letter at all
        (None, "C", False),
    ],
)
def test_mathverse_takes_letters_and_texts_of_options_and_reads_dirty_truths(
    answer: str | None, truth: str, right: bool
) -> None:
    assert mathverse.is_correct(answer, question(truth, None, "multi-choice", ASKED)) == right


def test_mathverse_compares_free_answers_by_what_they_say() -> None:
    assert mathverse.is_correct(r"\frac{1}{2}", question("0.5", kind="free-form"))
    assert not mathverse.is_correct("A", question("0.5", kind="free-form"))


def test_mathverse_finds_its_options_where_the_question_for_the_judge_has_them() -> None:
    asked = question("A", None, "multi-choice", "<image>Look.", question_for_eval="x?\nChoices:\nA:1\nB:2")
    assert mathverse.options(asked) == ["1", "2"]
    assert mathverse.options(question("A", None, "multi-choice", "Choices:\nA:1\nC:2")) is None


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("(B)", True),
        ("B. 5 cm", True),
        (r"\text{B}", True),
        (r"\text{(B)}", True),
        ("<B>", True),  # the template of the benchmark's prompt
        ("A", False),
        ("5 cm", False),  # only a letter counts: the authors look for no text
        ("Both", False),  # a word is no letter
        ("b", False),  # nor is a small one
        ("", False),
        (None, False),
    ],
)
def test_wemath_takes_the_letter_alone(answer: str | None, right: bool) -> None:
    assert wemath.is_correct(answer, question("B", ("12 cm", "5 cm"), "multi_choice")) == right


@pytest.mark.parametrize(
    ("steps", "whole", "strict", "loose"),
    [
        ((True, True), True, "CM", "CM"),
        ((True, False), True, "RM", "CM"),  # some steps are right: rote only strictly
        ((False, False), True, "RM", "RM"),
        ((True, True), False, "IG", "IG"),
        ((True, False), False, "IK", "IK"),
        ((False, False, False), False, "IK", "IK"),
        ((False, True, False), True, "RM", "CM"),
    ],
)
def test_a_problem_of_wemath_is_of_one_kind_strictly_and_loosely(
    steps: tuple[bool, ...], whole: bool, strict: str, loose: str
) -> None:
    assert wemath.kind_of(steps, whole, strict=True) == strict
    assert wemath.kind_of(steps, whole, strict=False) == loose


def problem(name: str, *right: bool) -> tuple[list[Question], dict[str, bool]]:
    count = len(right) - 1
    keys = [f"{count}steps_{step}" for step in [*range(1, count + 1), "multi"]]
    asked = [
        Question(f"{name}@{key}", "wemath", "", "multi_choice", None, "A", {"ID": name, "key": key}) for key in keys
    ]
    return asked, {one.id: verdict for one, verdict in zip(asked, right, strict=True)}


def test_the_scores_of_wemath_by_hand() -> None:
    # Strict: CM, RM, IG, IK; loose: CM, CM, IG, IK.
    problems = [
        problem("a", True, True, True),
        problem("b", True, False, True),
        problem("c", True, True, True, False),
        problem("d", False, True, True, False),
    ]
    asked = [one for questions, _ in problems for one in questions]
    verdicts = {id_: verdict for _, of_problem in problems for id_, verdict in of_problem.items()}
    found = wemath.scores(verdicts, asked)
    assert (found["S1"], found["S2"], found["S3"]) == (8 / 10, 1.0, 0.0)
    assert [found[f"strict {kind}"] for kind in ("IK", "IG", "CM", "RM")] == [0.25] * 4
    assert (found["strict score"], found["strict RM rate"]) == (0.25 + 0.125, 0.5)
    assert (found["loose score"], found["loose RM rate"]) == (0.5 + 0.125, 0.0)


def test_a_problem_of_wemath_without_one_of_its_steps_is_left_out() -> None:
    whole, of_whole = problem("a", True, True, True)
    cut, of_cut = problem("b", False, True, True)
    found = wemath.scores(of_whole | of_cut, [*whole, cut[0], cut[2]])
    assert found == wemath.scores(of_whole, whole) and found["S1"] == 1.0
    assert wemath.scores(of_cut, [cut[0], cut[2]]) == {}


def test_a_step_of_wemath_that_is_none_of_two_or_three_is_named() -> None:
    asked, verdicts = problem("a", True, True, True)
    odd = replace(asked[0], id="odd", metadata={**asked[0].metadata, "key": "2steps_3"})
    with pytest.raises(ValueError, match="We-Math problem a has the steps 2steps_3, which are unknown"):
        wemath.scores({**verdicts, "odd": True}, [*asked, odd])


def test_every_score_says_whose_rule_made_it() -> None:
    assert {name: one.rule for name, one in BENCHMARKS.items()} == {
        "mathvista": "official",
        "mathvision": "official",
        "mathverse": "rule-based",
        "wemath": "official",
        "figures": "own",
    }


@pytest.mark.parametrize(
    ("answer", "value"),
    [("3/2", 1.5), (r"\sqrt{4}", 2.0), ("12 cm", 12.0), ("x", None), ("(1,2)", None), ("1/0", None), ("1e400", None)],
)
def test_the_value_of_an_answer_is_that_of_a_real_number_or_none(answer: str, value: float | None) -> None:
    assert number_of(answer) == value


@given(st.text(max_size=30))
def test_no_answer_makes_a_rule_fail(answer: str) -> None:
    asked = question("B", FIVE, "multi_choice", answer_type="float", precision=1.0)
    for rule in (mathvista.is_correct, mathvision.is_correct, mathverse.is_correct, wemath.is_correct):
        assert rule(answer, asked) in (True, False)
