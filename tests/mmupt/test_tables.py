"""Markdown tables can hold any text without a change of their layout."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mmupt.reports.tables import code, markdown_table, plus_minus
from verl_ext.scores import Score


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=4))
def test_no_cell_leaves_its_column_or_its_line(rows: list[tuple[str, str, str]]) -> None:
    lines = markdown_table(rows).split("\n")
    assert len(lines) == len(rows) + 1 and len(set(map(len, lines))) == 1
    # After escaped characters are removed, only the pipes between cells remain.
    assert all(re.sub(r"\\.", "", line).count("|") == 4 for line in lines)
    assert all(line.isprintable() for line in lines)


def test_markup_is_escaped_and_plain_text_is_unchanged() -> None:
    table = markdown_table([("rule, `x`", "<b>[a](b)"), ("own, mean@4", "<1e-300 ± 0.5 → 1")])
    assert r"\`x\`" in table and r"\<b>\[a\](b)" in table
    assert "| own, mean@4" in table and "<1e-300 ± 0.5 → 1" in table


@given(st.text())
def test_no_text_leaves_its_code_span_or_its_line(text: str) -> None:
    span = code(text)
    assert span.startswith("`") and span.endswith("`") and span.count("`") == 2
    assert span.isprintable() and "|" not in span


def test_a_difference_has_a_sign_and_the_requested_decimals() -> None:
    difference = Score((0.0, 1.0))
    assert plus_minus(difference, signed=True) == "+50.00 ± 50.00"
    assert plus_minus(difference, decimals=1, factor=1) == "0.5 ± 0.5"
