"""Every branch of the official rules, on rows made by hand; the reason for each expectation stands beside it."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import (
    BENCHMARKS,
    OWN_VERSION,
    Question,
    mathverse,
    mathvision,
    mathvista,
    rule_version,
    wemath,
)
from mmupt.benchmarks.judge_prompts import JUDGE_VERSION
from mmupt.benchmarks.latex_value import latex_value
from mmupt.benchmarks.mathvista import levenshtein
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
def test_mathvista_takes_the_dress_off_an_answer_and_keeps_the_bare_rule_beside(
    answer: str, truth: str, metadata: dict[str, Any]
) -> None:
    cities = None if metadata else ("hong kong", "osaka", "shanghai")
    asked = replace(question(truth, cities, "multi_choice" if cities else "free_form", **metadata), id="q")
    verdicts = [rule.is_correct(answer, asked) for rule in BENCHMARKS["mathvista"].rules]
    assert verdicts[0] and verdicts[1] == mathvista.is_correct(answer, asked)
    bare = mathvista.cleaned(answer, asked)
    assert mathvista.cleaned(bare, asked) == bare and mathvista.is_correct(bare, asked)


def test_mathvista_by_the_bare_rule_gives_nothing_for_dress() -> None:
    assert not mathvista.is_correct(r"5\text{ cm}", question("5", answer_type="integer"))
    assert not mathvista.is_correct("B.", question("osaka", ("ab", "osaka"), "multi_choice"))


@pytest.mark.parametrize("answer", ["3 or 4", "5x", "A or B", "about five", ""])
def test_mathvista_leaves_alone_what_is_more_than_one_letter_or_number(answer: str) -> None:
    asked = question("5", answer_type="integer")
    assert mathvista.cleaned(answer, asked) == answer
    assert mathvista.cleaned(answer, question("x", ("hong kong", "osaka"), "multi_choice")) == answer


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_distance_of_texts_is_a_metric_bounded_by_their_lengths(one: str, other: str) -> None:
    distance = levenshtein(one, other)
    assert distance == levenshtein(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert levenshtein(f"x{one}", other) <= distance + 1
    if one and other:
        replaced = levenshtein(one[1:], other[1:]) + (one[0] != other[0])
        assert distance == min(levenshtein(one[1:], other) + 1, levenshtein(one, other[1:]) + 1, replaced)


def test_the_distance_of_texts_counts_insertions_deletions_and_replacements() -> None:
    assert [levenshtein("kitten", "sitting"), levenshtein("", "abc"), levenshtein("flaw", "lawn")] == [3, 3, 2]


FIVE = ("10", "20", r"$\frac{1}{2}$", "$40 \\mathrm{~cm}$", "$50^{\\circ}$")


@pytest.mark.parametrize(
    ("answer", "truth", "choices", "right"),
    [
        ("B", "B", FIVE, True),  # the letter
        ("b", "B", FIVE, True),  # lower-cased
        ("20", "B", FIVE, True),  # the option's text
        ("20.0", "B", FIVE, True),  # the option's text as a number
        ("0.5", "C", FIVE, True),  # LaTeX evaluated
        ("1:2", "C", FIVE, True),  # a colon divides
        ("C", "B", FIVE, False),
        ("", "B", FIVE, False),  # empty is wrong
        ("  ", "7", None, False),
        (None, "7", None, False),
        ("7", "7", None, True),
        ("7.0", "7", None, True),
        ("7.004", "7", None, True),  # equal to two decimals
        ("7.006", "7", None, False),
        ("-0.001", "0", None, True),
        ("1:1", "1", None, True),
        (r"\frac{7}{2}", "3.5", None, True),
        (r"\frac72", "3.5", None, False),  # fractions without braces have a number only where a root stands, too
        ("(1, 2)", "(1,2)", None, True),  # element by element
        ("(1.001,2)", "(1.00,2)", None, False),  # 1.0 and 1: rounded elements are compared as texts
        ("(1.001,2)", "(1.004,2)", None, True),
        ("(2,1)", "(1,2)", None, False),
        ("[1,2]", "(1,2)", None, False),  # other brackets
        ("(a,2)", "(A, 2.0)", None, True),
        ("(a,2)", "(A,2)", None, True),
        ("(1)", "1", None, True),  # brackets around one number are no tuple
        ("seven", "7", None, False),
        # As the authors clean every answer before they compare it.
        ("(B)", "B", FIVE, True),
        (r"\text{B}", "B", FIVE, True),
        ("b.", "B", FIVE, True),
        ("x=7", "7", None, True),
        (r"\$34", "34", None, True),
        (r"60^\circ", "60", None, True),
        (r"50\%", "50", None, True),
        # What they give no credit for, as cleaning leaves the option as it is and units have no number.
        (r"40 \mathrm{~cm}", "D", FIVE, False),
        ("40", "D", FIVE, False),
        ("50", "E", FIVE, False),
        ("20%", "20", None, False),
        ("7 cm", "7", None, False),
        ("house 1 and 4", "A", ("House 1 and 4",), False),
        # What they give credit for, as the rest of the text is never looked at.
        ("7 rows", "7", None, True),
        ("8 triangles", "8", None, True),
        ("7.)", "7", None, True),
    ],
)
def test_mathvision_agrees_with_its_authors_to_the_letter(
    answer: str | None, truth: str, choices: tuple[str, ...] | None, right: bool
) -> None:
    assert mathvision.is_correct(answer, question(truth, choices)) == right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Each as round(eval(str(latex2sympy(text))), 2) with latex2sympy2 1.9.1 and sympy 1.14.
        ("3:16", 0.19),
        ("1: 2: 3", 0.17),
        (r"$12\frac{1}{2}$", 6.0),  # a product
        (r"20\%", 0.2),
        (r"20 \%", None),
        ("20%", None),
        ("5)", 5),
        ("5;", None),
        ("5_3", 5),
        ("5'", 5),
        ("1,0000", 0),  # 1,000 times 0
        ("1..2", 1),
        ("x=y=5", 5),
        ("2x=6", None),
        ("3<4", 1),
        ("5!=120", None),
        ("-2^{2}", -4),
        ("2^3^2", 64),
        ("2^-1", None),
        ("2^{-1}", 0.5),
        (
            "5!!",
            6689502913449127057588118054090372586752746333138029810295671352301633557244962989366874165271984981308157637893214090552534408589408121859898481114389650005964960521256960000000000000000000000000000,
        ),
        ("2.5!", None),
        ("(5)_{3}", 60.0),
        (r"{5 \choose 2}", 10),
        (r"\log_{2}{8}", 3.0),
        (r"\ln 5", None),
        ("e^{2}", 7.39),
        ("e", None),
        (r"\sin 2 3", -0.28),  # of the product
        (r"\sin(2)3", 2.73),
        (r"\sin^{-1}(1)", 1.57),
        (r"\cos 60^{\circ}", None),
        (r"\sqrt[3]{8}", 2.0),
        (r"\sqrt[3]{-8}", None),
        (r"\sqrt3", None),
        (r"\left(5\right)", 5),
        (r"\left(5)", None),
        (r"\lfloor 2.5 \rfloor", 2),
        ("|5|", None),
        ("1/0", None),
        ("π", None),
        (r"\tau", 6.28),
        (r"\pir", None),
        ("4triangles", 4),
        ("", None),
    ],
)
def test_latex_has_the_value_that_the_authors_of_mathvision_compute(text: str, value: float | None) -> None:
    assert latex_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9}}}",
        "9" * 19_000,
        "(" * 9_000,
        "{" * 500 + "1" + "}" * 500,
        "-" * 19_000 + "1",
        "9!!!!",
        "2*" * 9_000 + "2",
        r"\sin" * 4_000,
        "1+" * 9_000 + "1",
        r"\frac" * 4_000,
        r"\binom{2000}{1000}" * 500,
        "oxed{" * 10_000,
        "is " * 20_000,
    ],
)
def test_a_hostile_answer_to_mathvision_takes_no_time(text: str) -> None:
    begin = time.perf_counter()
    latex_value(text)
    mathvision.is_correct(mathvision.extract(text, question("7")), question("7"))
    assert time.perf_counter() - begin < 1.0


@given(st.text(r"\{}()[]^_!'123.,:/*+-=<>$%~ abefrqst", max_size=40), st.text(r"\frac{}1:2", max_size=12))
def test_mathvision_judges_any_text_in_time(answer: str, truth: str) -> None:
    assert mathvision.is_correct(answer, question(truth)) in (True, False)
    value = latex_value(answer)
    assert value is None or round(value, 2) == value or value != value


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
        (ASKED, "C", "(C)", True),  # dirty truths say the letter all the same
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
        (TWO, "C", "C\nD", False),  # the authors' judge wants a complete match
        (TWO, "B, C, D", "C\nD", False),
        (GAPS, "C", "C", True),  # empty options, and one of two lines
        (GAPS, "It is short.", "C", True),
        (GAPS, "A", "C", False),
        (GAPS, "The answers are A and C.", "C", False),
    ],
)
def test_mathverse_takes_letters_and_texts_of_options_and_reads_dirty_truths(
    asked: str, answer: str | None, truth: str, right: bool
) -> None:
    assert mathverse.is_correct(answer, question(truth, None, "multi-choice", asked)) == right


def test_mathverse_finds_options_with_gaps_and_of_several_lines() -> None:
    assert mathverse.options(question("C", None, "multi-choice", GAPS)) == ["It is\nlong.", "", "It is short.", ""]
    assert mathverse.options(question("A", None, "multi-choice", BEARING)) == ["090^\\circ T", "180^\\circ T"]


def test_mathverse_leaves_out_the_label_of_a_value() -> None:
    for truth in (r"Area $=9 \pi$", r"Area of sector $=9 \pi$"):
        for answer in (r"9\pi", r"Area = 9\pi", truth):
            assert mathverse.is_correct(answer, question(truth, kind="free-form")), (answer, truth)
        assert not mathverse.is_correct(r"8\pi", question(truth, kind="free-form"))
    assert mathverse.unlabelled("y = 3x + 1") == "y = 3x + 1"


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
    assert wemath.mastery_of(steps, whole, strict=True) == strict
    assert wemath.mastery_of(steps, whole, strict=False) == loose


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
    assert {name: [rule.name for rule in one.rules] for name, one in BENCHMARKS.items()} == {
        "mathvista": ["cleaned official", "official"],
        "mathvision": ["official"],
        "mathverse": ["rule-based"],
        "wemath": ["official"],
        "figures": [],
        "figures_hard": [],
    }


def test_every_rule_has_a_version() -> None:
    for source, benchmark in BENCHMARKS.items():
        assert all(rule_version(source, rule.name) == rule.version >= 1 for rule in benchmark.rules)
        assert rule_version(source, "own") == OWN_VERSION and rule_version(source, "judge it") == JUDGE_VERSION


@pytest.mark.parametrize(
    ("answer", "value"),
    [("3/2", 1.5), (r"\sqrt{4}", 2.0), ("12 cm", 12.0), ("x", None), ("(1,2)", None), ("1/0", None), ("1e400", None)],
)
def test_the_value_of_an_answer_is_that_of_a_real_number_or_none(answer: str, value: float | None) -> None:
    assert number_of(answer) == value


@given(st.text(max_size=30))
def test_no_answer_makes_a_rule_fail(answer: str) -> None:
    asked = question("B", FIVE, "multi_choice", answer_type="float", precision=1.0)
    for benchmark in BENCHMARKS.values():
        for rule in benchmark.rules:
            assert rule.is_correct(answer, asked) in (True, False)
