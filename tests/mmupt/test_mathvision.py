"""Every branch of MATH-Vision's official rule on handmade rows; comments give the reasons."""

import time

import pytest
from benchmark_questions import FIVE, question
from hypothesis import given
from hypothesis import strategies as st

from mmupt.benchmarks import mathvision
from mmupt.benchmarks.latex_value import latex_value


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
        (r"\frac72", "3.5", None, False),  # fractions without braces have a value only beside a root
        ("(1, 2)", "(1,2)", None, True),  # element by element
        ("(1.001,2)", "(1.00,2)", None, False),  # 1.0 and 1: rounded elements are compared as texts
        ("(1.001,2)", "(1.004,2)", None, True),
        ("(2,1)", "(1,2)", None, False),
        ("[1,2]", "(1,2)", None, False),  # other brackets
        ("(a,2)", "(A, 2.0)", None, True),
        ("(a,2)", "(A,2)", None, True),
        ("(1)", "1", None, True),  # brackets around a single number are not a tuple
        ("seven", "7", None, False),
        # The authors clean every answer before they compare it.
        ("(B)", "B", FIVE, True),
        (r"\text{B}", "B", FIVE, True),
        ("b.", "B", FIVE, True),
        ("x=7", "7", None, True),
        (r"\$34", "34", None, True),
        (r"60^\circ", "60", None, True),
        (r"50\%", "50", None, True),
        # Wrong by the authors' rule: cleaning does not change the option, and units have no number.
        (r"40 \mathrm{~cm}", "D", FIVE, False),
        ("40", "D", FIVE, False),
        ("50", "E", FIVE, False),
        ("20%", "20", None, False),
        ("7 cm", "7", None, False),
        ("house 1 and 4", "A", ("House 1 and 4",), False),
        # Right by the authors' rule, which ignores the rest of the text.
        ("7 rows", "7", None, True),
        ("8 triangles", "8", None, True),
        ("7.)", "7", None, True),
    ],
)
def test_mathvision_gives_its_authors_verdicts(
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
def test_latex_has_the_value_of_mathvisions_authors(text: str, value: float | None) -> None:
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
def test_mathvision_judges_hostile_answers_fast(text: str) -> None:
    begin = time.perf_counter()
    latex_value(text)
    mathvision.is_correct(mathvision.extract(text, question("7")), question("7"))
    assert time.perf_counter() - begin < 1.0


@given(st.text(r"\{}()[]^_!'123.,:/*+-=<>$%~ abefrqst", max_size=40), st.text(r"\frac{}1:2", max_size=12))
def test_mathvision_judges_any_text(answer: str, truth: str) -> None:
    assert mathvision.is_correct(answer, question(truth)) in (True, False)
    value = latex_value(answer)
    assert value is None or round(value, 2) == value or value != value
