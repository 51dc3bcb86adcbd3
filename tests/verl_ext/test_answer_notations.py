"""Everyday spellings of answers, and notations that look like arithmetic but are not."""

import calendar
import json
import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verl_ext.answers import canonical, classify, correct

EVERYDAY = Path(__file__).parent / "hand_checked" / "everyday.jsonl"
UNITS = ["cm", "m", "cm^2", "kg", "km/h", "°", "%", "mN", "N m", "kΩ", "Ω", "hours", "apples", "m/s^2", "mA", "A"]
ORDINALS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth",
]  # fmt: skip


def same(a: str, b: str) -> bool:
    """Whether two answers share a class in a vote. Checks that a ground truth gives the same result on either side."""
    together = len(classify([a, b]).members) == 1
    assert len(classify([b, a]).members) == 2 - together
    assert correct(a, b) == correct(b, a) == together
    return together


def test_everyday_pairs_are_decided_like_a_careful_reader_would() -> None:
    pairs = [json.loads(line) for line in EVERYDAY.read_text().splitlines()]
    wrong = [pair for pair in pairs if same(pair["a"], pair["b"]) != pair["equal"]]
    assert [pair for pair in wrong if not pair["equal"]] == []
    assert len(wrong) <= 2, wrong


_years = st.integers(1900, 2099)
_small = st.integers(0, 60)


@given(_small, _small, _small, _small)
def test_a_range_or_score_equals_neither_a_difference_nor_another_range(a: int, b: int, c: int, d: int) -> None:
    assert same(f"{a}-{b}", f"{c}\u2013{d}") == ((a, b) == (c, d))
    assert same(f"{a} to {b}", f"{a} - {b}")
    assert not same(f"{a}-{b}", str(a - b))
    assert not same(f"{a}-{b}, {c}-{d}", f"{a - b}, {c - d}")


@given(_years, _years, st.sampled_from([unit for unit in UNITS if " " not in unit]))
def test_a_range_with_a_unit_equals_the_bare_range_and_no_range_with_another_unit(
    low: int, high: int, unit: str
) -> None:
    assert same(f"{low} {unit} to {high} {unit}", f"{low} to {high}")
    assert same(f"{low} {unit} - {high} {unit}", f"{low} - {high} {unit}")
    assert not same(f"{low} to {high} {unit}", f"{low} to {high} mm")


@given(st.dates(), st.dates())
def test_dates_are_equal_if_they_are_the_same_day(first, second) -> None:
    name, other = calendar.month_name[first.month], calendar.month_name[second.month]
    written = f"{name} {first.day}, {first.year:04}"
    assert same(written, f"{first.day} {name} {first.year:04}")
    assert same(written, first.isoformat())
    assert same(written, f"{other} {second.day}, {second.year:04}") == (first == second)
    assert same(first.isoformat(), second.isoformat()) == (first == second)
    slashes = f"{first.month}/{first.day}/{first.year:04}"
    assert same(slashes, f"{second.month}/{second.day}/{second.year:04}") == (first == second)
    assert not same(slashes, rf"\frac{{{first.month}}}{{{first.day * first.year}}}")
    assert not same(first.isoformat(), str(first.year - first.month - first.day))


@given(st.integers(1, 12), st.integers(0, 59), st.integers(1, 12), st.integers(0, 59))
def test_clock_times_are_not_ratios_and_equal_the_same_time_with_am_or_pm(
    hour: int, minute: int, other_hour: int, other_minute: int
) -> None:
    time = f"{hour}:{minute:02}"
    assert same(time, f"{other_hour}:{other_minute:02}") == ((hour, minute) == (other_hour, other_minute))
    assert same(time, f"{hour}:{minute:02} p.m.") and same(f"0{time}"[-5:], f"{time} AM")
    assert not same(f"{time} am", f"{time} PM")
    assert len(classify([time, f"{time} am", f"{time} pm"]).members) == 3
    assert minute >= 10 or not same(time, f"{hour}:{minute}")


@given(st.lists(_small, min_size=2, max_size=5), st.lists(_small, min_size=2, max_size=5))
def test_a_list_counts_repetitions_and_a_set_does_not(first: list[int], second: list[int]) -> None:
    def listed(numbers: list[int]) -> str:
        return ", ".join(map(str, numbers))

    assert same(listed(first), listed(second)) == (sorted(first) == sorted(second))
    assert same(rf"\{{{listed(first)}\}}", rf"\{{{listed(second)}\}}") == (set(first) == set(second))


@given(st.integers(1, 60), st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_a_bare_number_joins_a_single_unit_and_stays_apart_from_two(n: int, unit: str, other: str) -> None:
    assert same(f"{n} {unit}", str(n))
    assert same(f"{n} {unit}", f"{n} {other}") == (unit == other)
    members = classify([str(n), f"{n} {unit}", f"{n} {other}"]).members
    assert len(members) == (1 if unit == other else 3)


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), _small, _small)
def test_an_option_letter_with_its_text_equals_the_letter_alone(letter: str, other: str, n: int, m: int) -> None:
    for spelling in (f"{letter}. {n} cm", f"({letter}) {n} cm", f"{letter}: {n}", rf"\text{{{letter}) }} {n}"):
        assert same(spelling, letter)
        assert same(spelling, other) == (letter == other)
    assert same(f"{letter}. {n}", f"{other}. {m}") == ((letter, n) == (other, m))
    assert not same(f"{letter}. {n}", f"{m} cm") or n == m


@given(
    st.integers(2, 99), st.sampled_from(["thousand", "million", "billion", "dozen", "hundred", "thirds", "quarters"])
)
def test_a_number_word_is_not_a_unit(n: int, word: str) -> None:
    value = {"thousand": "000", "million": "000000", "billion": "000000000", "hundred": "00"}.get(word)
    assert not same(f"{n} {word}", str(n))
    if value is not None:
        assert same(f"{n} {word}", f"{n}{value}")


@pytest.mark.parametrize(
    ("group", "members"),
    [
        (["12"] * 3 + ["12 cm"] * 3 + ["36 cm^2"] * 4, ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9))),
        (["(D) (a)", "D", "A"], ((0, 1), (2,))),
        (["D. A", "D", "A"], ((0,), (1,), (2,))),
        (["(D) B", "D", "B"], ((0,), (1,), (2,))),
        (["12", "12 cm", "12 m", "13 m", "13"], ((3, 4), (0,), (1,), (2,))),
        (["A", "A. 12 cm", "(A) 12", "12 cm", "B"], ((0, 1, 2, 3), (4,))),
        (["A. 12", "A. 13", "A"], ((0,), (1,), (2,))),
        ([r"4\pi", r"4\pi \approx 12.57", "12.57"], ((0, 1), (2,))),
        ([r"4\pi \approx 12.57", "12.57"], ((0, 1),)),
        ([r"\pi \approx 3.14", "3.14", r"\pi"], ((0, 2), (1,))),
        (["AB=5, BC=6", "5, 6", "5 cm, 6 cm"], ((0, 1, 2),)),
        (["AB=5, BC=6", "AB=6, BC=5", "5, 6"], ((0,), (1,), (2,))),
        (["xy = 6", "uv = 6", "6"], ((0,), (1,), (2,))),
        (["3 to 4", "3:4"], ((0, 1),)),
        (["3 to 4", "3-4", "3:4"], ((0, 1), (2,))),
        ([r"6 \times 8", "48", "6 by 8"], ((0, 1), (2,))),
    ],
)
def test_the_group_fills_in_omitted_details(group: list[str], members: tuple[tuple[int, ...], ...]) -> None:
    assert sorted(classify(group).members) == sorted(members)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        (r"60^\circ", ["30", "60", "90"], "B"),
        ("60", [r"30^\circ", r"60^\circ"], "B"),
        ("12", ["12 cm", "12 cm^2"], None),
        ("12.57", [r"4\pi \approx 12.57", r"5\pi"], None),
        (r"4\pi \approx 12.57", ["12.57", "15.71"], "A"),
        ("B. about sixty", ["30", "60"], "B"),
        ("B. 61", ["30", "60"], '"b.61"'),
        ("(B) 49", ["A", "B", "C"], "B"),
        ("(A), (B)", ["A", "B", "C"], "A, B"),
        ("A, B or C", ["1", "2", "3"], "A, B or C"),
        ("a, b", ["a and b", "b and c"], "A"),
        ("6a-3b", ["3 a+6 b", "$6 a-3 b$"], "B"),
        ("3:10", ["$1: 3$", "$3: 10$"], "B"),
        ("GAD", ["GDA", "ADG", "GAD"], "C"),
        ("(b)", ["(c)", "(d)", "(a)", "(b)"], "D"),
        ("B", ["(c)", "(d)", "(a)", "(b)"], "B"),
        ("(b)", ["12", "13"], "B"),
        ("CD", [r"$\overline{AB}$", r"$\overline{CD}$"], "B"),
        (r"-2 \textbf{ (B)}", ["-4", "-2"], "B"),
        ("选项B", ["12", "15"], "B"),
        ("B (15)", ["12", "15"], "B"),
        ("B - 15", ["12", "15"], "B"),
        ("b)", ["12", "15"], "B"),
        ("**B. 15**", ["12", "15"], "B"),
        ("It increases.", ["decreases", "increases"], "B"),
        ("A only", ["A and B", "A only"], "B"),
    ],
)
def test_answers_match_options_by_letter_text_or_value(answer: str, options: list[str], letter: str | None) -> None:
    if letter is not None and letter.startswith('"'):
        assert canonical(answer, options).text == letter
    else:
        assert canonical(answer, options) == canonical(answer if letter is None else letter)


@pytest.mark.parametrize("words", ["9:30", "2011", "5-11", "May 5", "(1, 3)", "13 cm", "12 m", "9:30 PM"])
def test_a_letter_with_the_value_of_another_option_chooses_no_option(words: str) -> None:
    options = ["12 cm", "2010", "5-10", "May 6", "21:30"]
    for letter in "ABCDE":
        for answer in (f"({letter}) {words}", f"{letter}. {words}"):
            right = (letter, words) == ("E", "9:30 PM")
            assert correct(answer, letter, choices=options) == right, answer


@given(st.sampled_from([unit for unit in UNITS if " " not in unit]), _small, _small)
def test_a_remainder_is_neither_a_unit_nor_a_bare_number(unit: str, n: int, rest: int) -> None:
    assert same(f"{n} R {rest}", f"{n} remainder {rest}")
    assert not same(f"{n} R {rest}", str(n)) and not same(f"{n} remainder {rest}", f"{n} {unit}")
    assert not same(f"{n} R {rest}", f"{n} R {rest + 1}")


@given(st.integers(1, 11), st.integers(0, 59))
def test_a_12_hour_time_equals_a_24_hour_time_only_with_am_or_pm(hour: int, minute: int) -> None:
    assert same(f"{hour}:{minute:02} PM", f"{hour + 12}:{minute:02}")
    assert not same(f"{hour}:{minute:02} AM", f"{hour + 12}:{minute:02}")
    assert not same(f"{hour}:{minute:02}", f"{hour + 12}:{minute:02}")


@given(st.lists(st.sampled_from(["I", "II", "III", "IV"]), min_size=1, max_size=4, unique=True), st.data())
def test_statements_numbered_by_roman_numerals_are_a_set(statements: list[str], data) -> None:
    again = data.draw(st.permutations(statements))
    assert same(" and ".join(statements), f"{', '.join(again)} only")
    for other in {"I", "II", "III", "IV"} - {*statements}:
        assert not same(", ".join(statements), ", ".join([*statements, other]))


@given(st.integers(1, 20), st.sampled_from(UNITS), st.integers(1, 20))
def test_an_ordinal_equals_its_number_and_nothing_with_a_unit(n: int, unit: str, other: int) -> None:
    word = ORDINALS[n - 1]
    digits = f"{n}{['st', 'nd', 'rd', 'th'][min(n, 4) - 1]}"
    for ordinal in (word, digits, f"the {word}"):
        assert same(ordinal, str(n))
        assert same(f"{ordinal} term", f"{digits} term") and not same(f"{ordinal} term", f"{n} terms")
        for wrong in (f"{n} {unit}", f"{n} s", f"{n} m", f"1/{n}" if n > 1 else "2"):
            assert not same(ordinal, wrong)
        assert same(ordinal, str(other)) == (n == other)


@given(
    st.integers(1, 60),
    st.sampled_from([("см", "cm"), ("км/ч", "km/h"), ("кв. м", "m^2"), ("кг", "kg"), ("メートル", "m"), ("초", "s")]),
)
def test_units_in_other_scripts_are_recognized(n: int, unit: tuple[str, str]) -> None:
    assert same(f"{n} {unit[0]}", f"{n} {unit[1]}") and same(f"{n} {unit[0]}", str(n))
    assert not same(f"{n} {unit[0]}", f"{n} mm") and not same(f"{n} {unit[0]}", f"{n + 1} {unit[1]}")


@given(st.text("abcdeéñíøяжしは", min_size=2, max_size=6))
def test_words_in_other_scripts_are_case_insensitive(word: str) -> None:
    assume(any(letter not in "abcde" for letter in word))
    assert same(word, word.capitalize())
    assert not same(word, word[::-1]) or word == word[::-1]


@given(st.integers(-9, 9).filter(bool), st.lists(st.integers(-9, 9), min_size=4, max_size=4))
def test_scaled_and_transposed_matrices_and_determinants_are_evaluated(k: int, cells: list[int]) -> None:
    def matrix(kind: str, factor: int = 1) -> str:
        a, b, c, d = (factor * cell for cell in cells)
        return rf"\begin{{{kind}}} {a} & {b} \\ {c} & {d} \end{{{kind}}}"

    assert same(f"{k}{matrix('pmatrix')}", matrix("bmatrix", k))
    assert same(rf"\frac{{{k}}}{{2}} \cdot {matrix('bmatrix', 2)}", f"A = {matrix('pmatrix', k)}")
    assert same(f"{k}{matrix('pmatrix')}", matrix("pmatrix")) == (k == 1 or not any(cells))
    a, b, c, d = cells
    assert same(matrix("vmatrix"), str(a * d - b * c))
    assert same(matrix("pmatrix") + "^T", rf"\begin{{pmatrix}} {a} & {c} \\ {b} & {d} \end{{pmatrix}}")
    assert same(f"{k}({a}, {b})", f"({k * a}, {k * b})")
    assert same(rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}", f"({a}, {b})")


@given(st.integers(-9, 9), st.integers(1, 9), st.sampled_from([("<", ">"), (r"\leq", r"\ge")]), _small)
def test_an_inequality_of_an_absolute_value_is_two_inequalities(
    middle: int, radius: int, signs: tuple[str, str], other: int
) -> None:
    less, more = signs
    inside, low, high = f"|x - {middle}|".replace("- -", "+ "), middle - radius, middle + radius
    assert same(f"{inside} {less} {radius}", f"{low} {less} x {less} {high}")
    assert same(f"{inside} {more} {radius}", f"x {less} {low} or x {more} {high}")
    assert same(f"2{inside} + 1 {less} {2 * radius + 1}", f"{inside} {less} {radius}")
    assert not same(f"{inside} {less} {radius}", f"x {less} {high}")
    assert not same(f"{inside} {less} {radius}", f"{inside} {more} {radius}")
    assert same(f"{inside} {less} {radius}", f"{inside} {less} {other}") == (radius == other)


@given(
    st.integers(1, 60), st.integers(1, 60), st.sampled_from(["length", "area", "radius", "total cost", "average speed"])
)
def test_a_measured_quantity_equals_its_value(n: int, other: int, quantity: str) -> None:
    for text in (f"{quantity} {n}", f"the {quantity} {n} cm", f"a {quantity} of {n} cm", f"The {quantity} is {n}."):
        assert same(text, str(n)) and same(text, f"{n} cm")
        assert same(text, str(other)) == (n == other)
    assert not same(f"the {quantity} of {n} and {other}", f"{n}, {other}")


@given(_small, _small)
def test_numbered_answers_are_an_ordered_list(first: int, second: int) -> None:
    for numbered in (f"(1) {first}; (2) {second}", f"(a) {first}, (b) {second}", f"①{first}\uff1b②{second}"):
        assert same(numbered, f"{second}, {first}")
        assert not same(numbered, f"{second}, {first + 1}")
    assert same(f"(1) {first}; (2) {second}", f"(1) {second}; (2) {first}") == (first == second)
    assert not same(f"①{first}", f"1{first}")


@given(st.integers(2, 9), st.integers(1, 9))
def test_combinations_and_logarithms_are_evaluated(n: int, k: int) -> None:
    assert same(f"C_{n}^{k}", str(math.comb(n, k))) == (k <= n)
    assert same(rf"\log {n * k}", rf"\log {n} + \log {k}")
    assert not same(rf"\log {n}", rf"\ln {n}") and not same(rf"\log {n}", "1")


@pytest.mark.parametrize(
    ("answer", "equal", "other"),
    [
        (r"8.31 \frac{\text{J}}{\text{mol K}}", "8.31 J/(mol K)", "8.31 J/mol"),
        (r"2\vec{i} + 3\vec{j}", r"2\mathbf{i} + 3\mathbf{j}", r"2\mathbf{i} - 3\mathbf{j}"),
        ("答\uff1a15米", "15 m", "15 cm"),
        ("Ans: 15", "15", "16"),
        (r"\text{Perimeter} = 2(8+5) = 26", "26", "13"),
        ("line m", "m", "line n"),
        ("Figure 2", "2", "2 figures"),
        ("30 rpm", "30 revolutions per minute", "30 revolutions"),
        ("x = 3 (x = -2 is extraneous)", "3", "-2"),
        ("x = 3, reject x = -2", "3", "3, -2"),
        (r"The answer is $\frac{5}{9}$.", "5/9", "9/5"),
        ("(d)", "D", "E"),
        ("(d)", "d", "e"),
        ("$5 and $6", "5 dollars, 6 dollars", "5, 7"),
        (r"36\text{ in.}^2", "36 in^2", "36 in"),
        ("20 Nm", "20 N m", "20 nm"),
        (r"1.5 \text{ kW·h}", "1.5 kWh", "1.5 kW"),
        ("50¢", "50 cents", "$50"),
        ("noon", "12:00 PM", "midnight"),
        ("2020/07/04", "2020-07-04", "2020/04/07"),
        (r"(-\infty, \infty)", r"\mathbb{R}", r"[0, \infty)"),
        ("all real numbers", r"x \in \mathbb{R}", "no solution"),
        ("There are no solutions.", r"\emptyset", "no real solutions"),
        (r"\vec{v} = 2\hat{i} - \hat{j}", r"\langle 2, -1 \rangle", r"\langle 2, 1 \rangle"),
        (r"\triangle ABC \sim \triangle DEF", "△ABC ~ △DEF", "△ABC ~ △EFD"),
        (r"\triangle AMN", r"\triangle NAM", r"\triangle AMP"),
        ("5C2", "10", "20"),
        (r"{}^5P_2", "20", "10"),
        ("A_5^2", "20", "10"),
        ("6 [cm]", "6 cm", "6 mm"),
        ("5\\\\", "5", "6"),
        ("isosceles right triangle", "right isosceles triangle", "isosceles triangle"),
        ("DNE", "does not exist", "exists"),
        ("AB的长为5", "5", "6"),
        ("length 8 cm, width 5 cm", "8 cm, 5 cm", "length 5 cm, width 8 cm"),
        ("length 8 cm, width 5 cm", "8, 5", "8 m, 5 m"),
    ],
)
def test_spellings_and_phrases_do_not_change_an_answer(answer: str, equal: str, other: str) -> None:
    assert same(answer, equal)
    assert not same(answer, other)


@given(st.sampled_from("abcde"), st.sampled_from("ABCDE"))
def test_a_small_letter_in_a_group_with_capitals_is_an_option(small: str, capital: str) -> None:
    assert same(small, capital) == (small.upper() == capital)
    # Without capitals in the group, it may be a variable.
    assert canonical(small) != canonical(capital)
    assert same(small, f"{small}*1") and not same(f"2{small}", f"2{capital}")


@given(st.integers(0, 99), st.integers(1, 9))
def test_a_decimal_comma_is_read_only_where_a_list_cannot_be_meant(whole: int, digit: int) -> None:
    assert same(f"{whole},0{digit}", f"{whole}.0{digit}")
    assert same(f"{whole}{{,}}{digit}", f"{whole}.{digit}")
    assert same(f"1.234.567,{digit}", f"1234567.{digit}")
    assert same(f"{whole},0{digit} €", f"€{whole}.0{digit}")
    assert same(f"{whole},{digit}", f"{digit}, {whole}") and not same(f"{whole},{digit}", f"{whole}.{digit}")
    assert not same(f"0,{digit}25", f"{digit}25")


@given(st.integers(1, 60), st.integers(-9, 9))
def test_the_absolute_value_of_an_unknown_is_no_name_of_a_number(n: int, middle: int) -> None:
    equation = f"|x - ({middle})| = {n}"
    assert same(equation, f"x = {middle + n} or x = {middle - n}")
    assert not same(equation, f"x = {n}") and not same(rf"|x - ({middle})| = \sqrt{{2}}", r"\sqrt{2}")
    assert same(f"|AB| = {n}", str(n)) and same(f"|x - y| = {n}", str(n))


@given(st.integers(1, 20), st.integers(0, 20))
def test_combinations_are_not_permutations_though_both_may_be_points(n: int, k: int) -> None:
    assert same(f"P({n}, {k})", f"C({n}, {k})") == (n < k)
    assert same(f"P({n}, {k})", f"({n}, {k})") and same(f"C = ({n}, {k})", f"C({n}, {k})")
    assert same(f"C({n}) = {k}", str(k))


def test_molarity_joins_its_other_spelling_and_no_million() -> None:
    assert len(classify(["0.1 M", "0.1", "0.1 mol/L", "0.1M"]).members) == 1
    assert len(classify(["5 M", "5", "5 million"]).members) == 3
    assert len(classify(["5 M", "5 mol/L"]).members) == 1


def test_bold_letters_are_vectors_with_their_plain_letters_as_second_reading() -> None:
    products = [r"\mathbf{a} \times \mathbf{b}", r"\mathbf{b} \times \mathbf{a}", r"a \times b"]
    assert len(classify(products).members) == 3
    assert same(products[0], r"\vec{a} \times \vec{b}")
    assert len(classify([r"\mathbf{v}", r"\vec{v}"]).members) == len(classify([r"\mathbf{v}", "v"]).members) == 1
    # An expression is one of vectors wherever its letters have arrows.
    assert len(classify([r"2\mathbf{v}", r"2\vec{v}", "2v"]).members) == 2
