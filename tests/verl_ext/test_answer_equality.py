"""Equality of answers: equal and different pairs, and the laws of an equivalence relation."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.answers import Comparison, canonical, classify, correct, equivalent, foreign_rules
from verl_ext.answers.algebra import Algebra
from verl_ext.answers.normal_form import name, number

HAND_CHECKED = Path(__file__).parent / "hand_checked"


def test_at_least_97_percent_of_hand_checked_pairs_are_right_and_no_number_unit_or_choice_is_falsely_equal() -> None:
    pairs = [json.loads(line) for line in (HAND_CHECKED / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) >= 300
    wrong = [pair for pair in pairs if equivalent(pair["a"], pair["b"], choices=pair["choices"]) != pair["equal"]]
    assert len(wrong) <= 0.03 * len(pairs), wrong
    exact = {"number", "fraction", "unit", "percent", "degrees", "choice"}
    assert [pair for pair in wrong if pair["kind"] in exact and not pair["equal"]] == []


def test_none_equals_nothing_not_even_none() -> None:
    assert not equivalent(None, None)
    assert not equivalent(None, "None")
    assert not correct(None, None)
    assert not correct(None, "5") and not correct("5", None)
    assert classify([None, None]).members == ()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\tan^2(y)+1", r"\sec^2(y)"),
        (r"\cos 2x", r"1-2\sin^2 x"),
        (r"\frac{\tan x+\tan y}{1-\tan x\tan y}", r"\tan(x+y)"),
        (r"\arcsin x+\arccos x", r"\frac{\pi}{2}"),
        (r"\sin^{-1}\frac35", r"\tan^{-1}\frac34"),
        (r"\cos 20°\cos 40°\cos 80°", r"\frac18"),
        (r"\cos 36°", r"\frac{1+\sqrt5}{4}"),
        (r"\sin 180°+x", "x"),
        (r"\arccos(\sin^2 x+\cos^2 x)", "0"),
        (r"\{\sin 30°, 2\}", r"\{2, 1/2\}"),
        (r"(\sin 30°, 2)", "(0.5, 2)"),
        (r"2\sin 2x > 1", r"4\sin x\cos x > 1"),
        (r"\sin 2x = x", r"2x = 4\sin x\cos x"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5}", "1"),
        (r"\frac{1}{1+\sqrt2+\sqrt3}", r"\frac{\sqrt2+2-\sqrt6}{4}"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"|x|", r"\sqrt{x^2}"),
        (r"|x-y|", r"|y-x|"),
        (r"|x^2+1|", "x^2+1"),
        (r"\frac{e^x-e^{-x}}{2}", r"\sinh x"),
        (r"\frac{n!}{(n-1)!}", "n"),
        (r"\lfloor\pi\rfloor", "3"),
        (r"\max(\sqrt2, \sqrt3)", r"\sqrt3"),
        (r"2^{100000}", r"2\cdot 2^{99999}"),
    ],
)
def test_the_numeric_test_finds_equalities_that_normal_forms_miss(a: str, b: str) -> None:
    assert canonical(a) != canonical(b)
    assert equivalent(a, b) and equivalent(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\sqrt{x^2}", "x"),
        (r"\sqrt{1/n}", r"\frac{1}{\sqrt{n}}"),
        (r"\pi", "3.14159265358979"),
        (r"\sqrt2", "1.41421356237309504880"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        ("9**9**9**9", "9**9**9"),
        ("(x+1)**5000", "x/3"),
        ("None", "none of the above"),
        ("1:00 AM", "1:00 PM"),
        ("IV", "VI"),
        ("at", "ta"),
        ("(x^2)^y", "x^{2y}"),
        # Equal to many digits, but not exactly.
        (r"\pi", "3.14159265358979323846264338327950288419716939937510582097494459"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        (r"\sqrt{10^{200}+1}", "10^{100}"),
        (r"2^{100000}+1", r"2\cdot 2^{99999}"),
        (r"\ln(2^{100000}+1)", r"100000\ln 2"),
        ("e^{-1000}+1", "1"),
        (r"\tanh 1000", "1"),
        (r"\arctan 10^{100}", r"\frac{\pi}{2}"),
        (r"\cos 10^{-100}", "1"),
        # Equal only for positive, small or large numbers, or for numbers of one sign.
        (r"\ln x^2", r"2\ln x"),
        (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}"),
        (r"\arctan x+\arctan\frac1x", r"\frac{\pi}{2}"),
        ("|xy|", "xy"),
        ("|x-5|", "5-x"),
        ("|x-5|", "x-5"),
        ("||x|-0.3|", "|x|-0.3"),
        (r"\max(x, 1000)", "1000"),
        (r"2\sin x > x", r"2\sin x < x"),
        # Without a value.
        (r"\tan 90°", r"\tan 270°"),
        (r"\frac{1}{\sin 180°}", r"\frac{1}{\cos 90°}"),
    ],
)
def test_answers_that_are_only_close_or_equal_for_some_values_are_different(a: str, b: str) -> None:
    assert not equivalent(a, b)


def test_a_bare_number_equals_a_number_with_a_unit_only_if_the_ground_truth_or_group_fixes_the_unit() -> None:
    assert not equivalent("12", "12 cm")
    assert correct("12", "12 cm") and correct("12 cm", "12")
    assert not correct("12 m", "12 cm")
    assert classify(["12", "12 cm", "13"]).members == ((0, 1), (2,))
    assert len(classify(["12", "12 cm", "12 m"]).members) == 3


@pytest.mark.parametrize(("answer", "truth"), [("50", r"50\%"), ("90", r"90^\circ"), ("5", r"\$5"), ("7", "7 apples")])
def test_percent_degrees_money_and_counted_nouns_are_units(answer: str, truth: str) -> None:
    assert correct(answer, truth) and correct(truth, answer)
    assert not equivalent(answer, truth)


def test_the_letter_and_text_of_an_option_are_equal_and_a_contradiction_equals_no_option() -> None:
    choices = ["12 cm", "15 cm", r"\frac{1}{2}", "None of these"]
    for answer in ("B", "(b)", "b", "B. 15 cm", "15 cm", "15", r"\text{B}", "Option B"):
        assert canonical(answer, choices).text == "B", answer
    assert canonical("0.5", choices).text == "C"
    assert canonical("A. 15 cm", choices).text not in ("A", "B")
    assert canonical("E", choices) == canonical("E")


def test_a_text_shared_by_two_options_has_no_letter() -> None:
    assert canonical("1/2", ["0.5", "1/2"]) == canonical("1/2")


@pytest.mark.parametrize("empty", ["", " ", r"\text{}", "$$", "?", "{}"])
def test_an_empty_answer_equals_nothing(empty: str) -> None:
    assert not equivalent(empty, empty)
    assert not correct(empty, empty) and not correct("1", empty) and not correct(empty, "1")
    assert classify([empty, empty, "1"]).members == ((2,),)


def test_long_runs_of_symbols_can_be_compared() -> None:
    for symbol in "!-+'√|^({%":
        assert not equivalent(f"2{symbol * 300}x{symbol * 300}", f"{symbol * 300}x")


def test_an_expression_that_explodes_with_nesting_is_compared_as_text() -> None:
    answer = "x"
    for _ in range(9):
        answer = rf"\sin(({answer}+y)^{{12}})"
    assert canonical(answer) == canonical(answer.upper().replace(r"\SIN", r"\sin"))


def test_the_representative_of_a_class_is_its_most_frequent_spelling_with_a_unit() -> None:
    classes = classify(["12", "12", "12 cm", "12.0 cm", "12.0 cm", "7"])
    assert classes.answers == ("12.0 cm", "7")


# Several spellings of the same integers, and other kinds of answers.
_integers = st.integers(-50, 50)
_spellings: list[Callable[[int], str]] = [
    str,
    lambda n: f"{n}.0",
    lambda n: rf"\frac{{{2 * n}}}{{2}}",
    lambda n: f"x = {n}",
    lambda n: f"${n}$",
    lambda n: rf"\sqrt{{{n * n}}}" if n >= 0 else f"-{-n}",
    lambda n: f"{n + 1} - 1 = {n}",
]
_numbers = st.builds(lambda spell, n: spell(n), st.sampled_from(_spellings), _integers)
_others = st.sampled_from(
    [
        "A", "(A)", "a", "yes", "Yes.", "No", "12 cm", "12 m", "12m", "12", "50%", "1/2", "0.5", r"\frac12", r"2\sqrt3",
        r"\sqrt{12}", r"3\pi", "x+1", "1+x", "(1, 2)", "(2, 1)", r"\{1, 2\}", "1, 2", "x=5, y=3", "[0, 1)", "x < 1",
        r"\sin 30°", r"\frac{x^2-1}{x-1}", "isosceles", "30°", r"\sin 2x", r"2\sin x\cos x", "|x|", r"\sqrt{x^2}",
        "|xy|", "xy", r"\tan 90°", r"\{\cos 60°, x\}", r"\{x, 0.5\}", r"\sin 2x > x", r"2x < 4\sin x\cos x",
    ]
)  # fmt: skip
_answers = st.one_of(_numbers, _others)


@given(_answers, _answers, _answers)
def test_equality_is_an_equivalence_relation(a: str, b: str, c: str) -> None:
    assert equivalent(a, a)
    assert equivalent(a, b) == equivalent(b, a)
    if equivalent(a, b) and equivalent(b, c):
        assert equivalent(a, c)


@given(_integers, st.sampled_from(_spellings), st.sampled_from(_spellings))
def test_all_spellings_of_an_integer_are_equal(n: int, first, second) -> None:
    assert canonical(first(n)) == canonical(second(n))


@given(_integers, _integers, st.sampled_from(_spellings), st.sampled_from(_spellings))
def test_spellings_of_different_integers_are_different(n: int, m: int, first, second) -> None:
    assert (canonical(first(n)) == canonical(second(m))) == (n == m)


@given(st.lists(st.one_of(st.none(), _answers), max_size=8), st.randoms(use_true_random=False))
def test_the_classes_of_a_group_do_not_depend_on_the_order_of_its_answers(answers, random) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)
    classes, permuted = classify(answers), classify([answers[i] for i in order])
    assert permuted.answers == classes.answers
    assert [sorted(order[i] for i in members) for members in permuted.members] == [list(m) for m in classes.members]


@given(st.lists(st.one_of(st.none(), _answers), max_size=8))
def test_classes_partition_the_answers_and_are_sorted_by_size(answers) -> None:
    members = classify(answers).members
    given_at = [position for position, answer in enumerate(answers) if answer is not None]
    assert sorted(position for positions in members for position in positions) == given_at
    assert [*map(len, members)] == sorted(map(len, members), reverse=True)


@given(st.lists(_answers, max_size=6))
def test_duplicating_a_group_duplicates_its_classes(answers) -> None:
    classes, doubled = classify(answers), classify(answers * 2)
    assert doubled.answers == classes.answers
    assert [len(members) for members in doubled.members] == [2 * len(members) for members in classes.members]


@given(st.text(max_size=60))
def test_any_text_has_a_key_and_equals_itself(text: str) -> None:
    assert canonical(text) == canonical(text)
    assert equivalent(text, text) == bool(classify([text]).members)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{x}{{3 \over 4}}", r"\frac{4x}{3}"),
        (r"{{1 \over 2} \over {3 \choose 2}}", r"\frac{1}{6}"),
        (r"2 + {a \over {b \over c}}", r"2 + \frac{ac}{b}"),
    ],
)
def test_nested_fractions_in_plain_tex_are_parsed(a: str, b: str) -> None:
    assert canonical(a) == canonical(b)


_fractions = st.fractions(min_value=-20, max_value=20, max_denominator=12)


@given(st.lists(_fractions, min_size=3, max_size=3))
def test_sums_and_products_of_expressions_obey_the_laws_of_arithmetic(values) -> None:
    algebra = Algebra()
    a, b, c = (algebra.add(number(value), algebra.multiply(number(value), name("x"))) for value in values)
    root = algebra.power(number(2), number(values[0].limit_denominator(2)))
    assert algebra.add(a, b) == algebra.add(b, a)
    assert algebra.multiply(a, algebra.add(b, c)) == algebra.add(algebra.multiply(a, b), algebra.multiply(a, c))
    assert algebra.multiply(root, algebra.multiply(a, b)) == algebra.multiply(algebra.multiply(b, root), a)
    assert algebra.subtract(a, a).rational == 0


@pytest.mark.parametrize("rule", ["mathruler", "math_verify"])
def test_foreign_graders_compare_answers_and_none_equals_nothing(rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_rules, "SECONDS_PER_PAIR", 20.0)
    comparison = Comparison(rule)
    answers = ["12", "12.0", None, None, "13"]
    assert classify(answers, comparison).members == ((0, 1), (4,))
    assert correct("0.5", r"\frac{1}{2}", comparison) and equivalent("0.5", r"\frac{1}{2}", comparison)
    assert not correct(None, "None", comparison)


def test_pairs_that_a_foreign_grader_does_not_decide_in_time_are_different_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(foreign_rules, "SECONDS_PER_PAIR", 0.1)
    monkeypatch.setattr(foreign_rules, "SECONDS_PER_GROUP", 0.3)
    classes = classify(["9**9**9**9", "99999999!", "1"], Comparison("mathruler"))
    assert len(classes.members) == 3
    assert "mathruler did not decide" in caplog.text


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="rule='string' is none of canonical, mathruler, math_verify"):
        Comparison("string")  # type: ignore[arg-type]


def test_the_canonical_rule_and_the_vote_start_no_process_and_import_no_grader_and_no_framework() -> None:
    code = """
import subprocess, sys
subprocess.Popen = None
from verl_ext.answers import classify
from verl_ext.votes import vote
assert len(classify([r"\\sin 2x", r"2\\sin x\\cos x", r"\\sin x"]).members) == 2
print([name for name in ("sympy", "mathruler", "math_verify", "verl", "ray", "vllm", "torch") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
