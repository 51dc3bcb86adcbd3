"""Equality of answers: what is the same, what is not, and that it is an equivalence relation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.answers import Comparison, canonical, classify, correct, equivalent
from verl_ext.answers.algebra import Algebra, name, number

# A machine that is busy with other things must not decide what is equal.
PATIENT = Comparison(seconds_per_pair=10, seconds_per_group=60)
HAND_CHECKED = Path(__file__).parent / "hand_checked"


def test_at_least_97_of_100_hand_checked_pairs_are_decided_rightly_and_no_number_unit_or_choice_is_equal_wrongly() -> (
    None
):
    pairs = [json.loads(line) for line in (HAND_CHECKED / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) >= 300
    wrong = [pair for pair in pairs if equivalent(pair["a"], pair["b"], PATIENT, pair["choices"]) != pair["equal"]]
    assert len(wrong) <= 0.03 * len(pairs), wrong
    exact = {"number", "fraction", "unit", "percent", "degrees", "choice"}
    assert [pair for pair in wrong if pair["kind"] in exact and not pair["equal"]] == []


def test_no_answer_equals_nothing_and_not_even_no_answer() -> None:
    assert not equivalent(None, None)
    assert not equivalent(None, "None")
    assert not correct(None, None)
    assert not correct(None, "5") and not correct("5", None)
    assert classify([None, None]).members == ()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\tan^2(y)+1", r"\sec^2(y)"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"\cos 36°", r"\frac{1+\sqrt5}{4}"),
        (r"\{\sin 30°, 2\}", r"\{2, 1/2\}"),
        (r"(\sin 30°, 2)", "(0.5, 2)"),
        (r"|x|", r"\sqrt{x^2}"),
        (r"2^{100000}", r"2\cdot 2^{99999}"),
    ],
)
def test_what_exact_arithmetic_leaves_open_is_decided_in_a_child_process(a: str, b: str) -> None:
    assert canonical(a) != canonical(b)
    assert equivalent(a, b, PATIENT) and equivalent(b, a, PATIENT)


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
    ],
)
def test_what_is_only_near_or_equal_for_some_values_is_different(a: str, b: str) -> None:
    assert not equivalent(a, b)


def test_a_number_with_a_unit_is_not_the_number_until_a_truth_or_the_group_has_fixed_the_unit() -> None:
    assert not equivalent("12", "12 cm")
    assert correct("12", "12 cm") and correct("12 cm", "12")
    assert not correct("12 m", "12 cm")
    assert classify(["12", "12 cm", "13"]).members == ((0, 1), (2,))
    assert len(classify(["12", "12 cm", "12 m"]).members) == 3


@pytest.mark.parametrize(("answer", "truth"), [("50", r"50\%"), ("90", r"90^\circ"), ("5", r"\$5"), ("7", "7 apples")])
def test_percent_degrees_money_and_things_that_are_counted_are_units(answer: str, truth: str) -> None:
    assert correct(answer, truth) and correct(truth, answer)
    assert not equivalent(answer, truth)


def test_an_option_is_its_letter_its_text_or_both_and_a_contradiction_is_neither() -> None:
    choices = ["12 cm", "15 cm", r"\frac{1}{2}", "None of these"]
    for answer in ("B", "(b)", "b", "B. 15 cm", "15 cm", "15", r"\text{B}", "Option B"):
        assert canonical(answer, choices).text == "B", answer
    assert canonical("0.5", choices).text == "C"
    assert canonical("A. 15 cm", choices).text not in ("A", "B")
    assert canonical("E", choices) == canonical("E")


def test_an_option_that_is_there_twice_has_no_letter() -> None:
    assert canonical("1/2", ["0.5", "1/2"]) == canonical("1/2")


@pytest.mark.parametrize("empty", ["", " ", r"\text{}", "$$", "?", "{}"])
def test_an_empty_answer_is_no_answer(empty: str) -> None:
    assert not equivalent(empty, empty)
    assert not correct(empty, empty) and not correct("1", empty) and not correct(empty, "1")
    assert classify([empty, empty, "1"]).members == ((2,),)


def test_any_number_of_signs_in_a_row_can_be_compared() -> None:
    for sign in "!-+'√|^({%":
        assert not equivalent(f"2{sign * 300}x{sign * 300}", f"{sign * 300}x")


def test_what_grows_with_every_nesting_is_soon_compared_as_text() -> None:
    answer = "x"
    for _ in range(9):
        answer = rf"\sin(({answer}+y)^{{12}})"
    assert canonical(answer) == canonical(answer.upper().replace(r"\SIN", r"\sin"))


def test_the_answer_of_a_class_has_the_unit_and_is_the_most_frequent_spelling() -> None:
    classes = classify(["12", "12", "12 cm", "12.0 cm", "12.0 cm", "7"])
    assert classes.answers == ("12.0 cm", "7")


# Different spellings of the same values, and values of many kinds.
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
        r"\sin 30°", r"\frac{x^2-1}{x-1}", "isosceles", "30°",
    ]
)  # fmt: skip
_answers = st.one_of(_numbers, _others)


@given(_answers, _answers, _answers)
def test_keys_are_an_equivalence_relation(a: str, b: str, c: str) -> None:
    assert equivalent(a, a)
    assert equivalent(a, b, PATIENT) == equivalent(b, a, PATIENT)
    if equivalent(a, b, PATIENT) and equivalent(b, c, PATIENT):
        assert equivalent(a, c, PATIENT)


@given(_integers, st.sampled_from(_spellings), st.sampled_from(_spellings))
def test_all_spellings_of_an_integer_are_the_same_answer(n: int, first, second) -> None:
    assert canonical(first(n)) == canonical(second(n))


@given(_integers, _integers, st.sampled_from(_spellings), st.sampled_from(_spellings))
def test_spellings_of_different_integers_are_different_answers(n: int, m: int, first, second) -> None:
    assert (canonical(first(n)) == canonical(second(m))) == (n == m)


@given(st.lists(st.one_of(st.none(), _answers), max_size=8), st.randoms(use_true_random=False))
def test_the_classes_of_a_group_do_not_depend_on_the_order_of_its_answers(answers, random) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)
    classes, permuted = classify(answers, PATIENT), classify([answers[i] for i in order], PATIENT)
    assert permuted.answers == classes.answers
    assert [sorted(order[i] for i in members) for members in permuted.members] == [list(m) for m in classes.members]


@given(st.lists(st.one_of(st.none(), _answers), max_size=8))
def test_classes_are_disjoint_hold_every_answer_and_fall_in_size(answers) -> None:
    members = classify(answers, PATIENT).members
    given_at = [position for position, answer in enumerate(answers) if answer is not None]
    assert sorted(position for one in members for position in one) == given_at
    assert [len(one) for one in members] == sorted(map(len, members), reverse=True)


@given(st.lists(_answers, max_size=6))
def test_duplicating_a_group_duplicates_its_classes(answers) -> None:
    classes, doubled = classify(answers, PATIENT), classify(answers * 2, PATIENT)
    assert doubled.answers == classes.answers
    assert [len(members) for members in doubled.members] == [2 * len(members) for members in classes.members]


@given(st.text(max_size=60))
def test_whatever_the_text_it_has_a_key_and_is_the_same_as_itself(text: str) -> None:
    assert canonical(text) == canonical(text)
    assert equivalent(text, text) == bool(classify([text]).members)


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
def test_graders_of_others_are_rules_that_know_no_answer_by_itself(rule) -> None:
    comparison = Comparison(rule, seconds_per_pair=5, seconds_per_group=20)
    answers = ["12", "12.0", None, None, "13"]
    assert classify(answers, comparison).members == ((0, 1), (4,))
    assert correct("0.5", r"\frac{1}{2}", comparison)
    assert not correct(None, "None", comparison)


def test_what_is_not_decided_in_time_is_different_and_counted() -> None:
    poison = ["9**9**9**9", "99999999!", "1"]
    classes = classify(poison, Comparison("mathruler", seconds_per_pair=0.1, seconds_per_group=0.3))
    assert len(classes.members) == 3
    assert classes.undecided >= 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "string"}, "rule='string' is none of canonical, mathruler, math_verify"),
        ({"seconds_per_pair": 0}, "seconds_per_pair=0 must be a positive number of seconds"),
        ({"seconds_per_pair": None}, "seconds_per_pair=None must be a positive number of seconds"),
        ({"seconds_per_group": -1.0}, "seconds_per_group=-1.0 must be a positive number of seconds"),
    ],
)
def test_a_comparison_without_a_rule_or_a_limit_is_refused(fields, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison(**fields)
