"""The table of docs/families.md, which the tests of this folder verify."""

from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


@cache
def documented_cells() -> dict[str, dict[str, str]]:
    """The cells by `model_type` of a family and column."""
    lines = PAGE.read_text().partition("| family")[2].partition("\n\n")[0].splitlines()
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.split("`")[1]: dict(zip(columns[1:], cells, strict=True)) for name, *cells in rows}
