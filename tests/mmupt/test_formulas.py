"""Formulas in responses become MathML, and no response yields any markup but formulas."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmupt.reports.formulas import answer_with_formulas, mathml, with_formulas

NAMES = "math mrow mi mn mo mtext mspace msqrt mroot mstyle mtable mtr mtd menclose mpadded mphantom mfrac msub msup"
ELEMENTS = {*NAMES.split(), "msubsup", "munder", "mover", "munderover"}


class Reader(HTMLParser):
    """Collects the elements, attributes and text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "text",
    [
        "so $x^2$ holds",
        r"so \(x^2\) holds",
        "so $$x^2$$ holds",
        r"so \[x^2\] holds",
        r"so \boxed{x^{2}} holds",
        r"so \begin{align*} x &= 2 \end{align*} holds",
        "so $ x^2 $ holds",
    ],
)
def test_formulas_are_recognized_in_all_delimiters_that_models_use(text: str) -> None:
    html = with_formulas(text)
    assert html.startswith("so <math") and html.endswith("</math> holds") and "x" in Reader(html).text


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "$5-$10",
        "$ 5 and 6 $",
        r"\boxed{3",
        r"$\left( 3$",
        r"$\nosuchcommand{3}$",
        r"$\frac{3}$",
        r"$\def\a{\b\b}\def\b{\c\c}\a$",
        r"$\newcommand{\a}{b}\a$",
        "$" + "x" * 1_001 + "$",
        "a < b & c > d",
        "",
        "$$$$",
    ],
)
def test_text_without_a_valid_formula_is_shown_unchanged(text: str) -> None:
    reader = Reader(with_formulas(text))
    assert reader.text == text and reader.elements == []


def test_an_invalid_formula_does_not_affect_other_formulas() -> None:
    html = with_formulas(r"$\nosuch$, but $\frac{1}{2}$")
    assert html.startswith(r"$\nosuch$, but <math") and "<mfrac>" in html


@pytest.mark.parametrize(
    ("answer", "is_formula"),
    [(r"\frac{3}{4}", True), (r"12^\circ", True), ("x_1", True), ("$x$", True), ("12", False), ("<b>", False)],
)
def test_an_answer_needs_no_delimiters_around_its_formula(answer: str, is_formula: bool) -> None:
    assert ("<math" in answer_with_formulas(answer)) == is_formula
    assert "<b>" not in answer_with_formulas(answer)


def test_a_fraction_becomes_an_mfrac_element() -> None:
    expected = "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"
    assert mathml(r"\frac{1}{2}") == f'<math display="inline"><mrow>{expected}</mrow></math>'


PIECES = [
    *("$", "$$", r"\(", r"\)", r"\[", r"\]", r"\boxed{", "}", "{", "^", "_", r"\frac", r"\text{", r"\sqrt[", "]"),
    *(r"\href{javascript:alert(1)}{x}", r"\style{background:url(//x)}{y}", r"\class{c}{y}", r"\color{red}"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "&#60;script&#62;", "</math>", '"', "'"),
    *(r"\begin{align}", r"\end{align}", r"\begin{matrix}", r"\end{matrix}", "&", r"\\", r"\left(", r"\right)"),
    *("x", "1", " ", "\n", "\0", "\ud800", r"\hspace{999999em}", r"\rule{9em}{9em}", r"\includegraphics{x}"),
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=30).map("".join))
@example(r"$\text{<script>alert(1)</script>}$")
@example(r"$\text{&lt;script&gt;}$")
@example(r"$\href{javascript:alert(1)}{x}$")
def test_any_text_yields_only_elements_of_formulas(text: str) -> None:
    for html in (with_formulas(text), answer_with_formulas(text)):
        reader = Reader(html)
        assert set(reader.elements) <= ELEMENTS
        assert not reader.attributes.keys() & {"href", "src", "style", "class", "id", "onerror", "xmlns"}
        assert not any("javascript" in (value or "") for value in reader.attributes.values())
        assert "math" in reader.elements or reader.text == text.replace("\0", "\ufffd") or reader.text == text


@pytest.mark.parametrize(
    "text",
    [
        r"\[" * 5_000 + r"\]",
        r"\boxed{" * 1_400 + "}" * 1_400,
        "$x$" * 6_000,
        r"\boxed{x" * 2_500,
        r"$\foo{" * 3_000,
        r"\begin{x}" * 2_000 + r"\end{x}",
        r"\(\frac" * 2_500,
        r"$a^{" * 400 + "$",
        r"$\def\a{\b\b\b}\def\b{\c\c\c}\def\c{\d\d\d}\a$" * 300,
    ],
    ids=range(9),
)
def test_hostile_texts_are_rendered_within_two_seconds(text: str) -> None:
    start = time.process_time()
    with_formulas(text)
    assert time.process_time() - start < 2
