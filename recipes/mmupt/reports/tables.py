"""Markdown tables. Cell texts (names, labels, responses) are untrusted and cannot change the layout."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

# Longer values in code spans are truncated.
LONGEST_CODE = 200
# Characters that would end a cell or start code, emphasis, a link, an HTML tag or a formula.
_MARKUP = re.compile(r"[\\`*\[\]|$]|<(?=[A-Za-z/!?])")


class Mean(Protocol):
    """A mean and its standard error."""

    @property
    def value(self) -> float: ...

    @property
    def standard_error(self) -> float: ...


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of cells, header first, as a Markdown table with aligned columns; all cells are escaped."""
    cells = [list(map(escaped, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Escape a text so that Markdown shows it literally, on one line."""
    return _MARKUP.sub(r"\\\g<0>", _one_line(text))


def code(value: Any) -> str:
    """Format a value as a one-line code span that no character can break out of."""
    text = str(value).replace("`", "'").replace("|", "¦")
    return f"`{_one_line(text)[:LONGEST_CODE]}`"


def plus_minus(mean: Mean, decimals: int = 2, factor: float = 100, signed: bool = False) -> str:
    """Format a mean and its standard error, each times `factor` (default: in percent).

    >>> from verl_ext.scores import Score
    >>> plus_minus(Score((0.0, 1.0)), decimals=1)
    '50.0 ± 50.0'
    """
    sign = "+" if signed else ""
    return f"{factor * mean.value:{sign}.{decimals}f} ± {factor * mean.standard_error:.{decimals}f}"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
