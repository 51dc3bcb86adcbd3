"""The table of docs/families.md has every family of the tests, and says what they find."""

from pathlib import Path
from typing import Any

import pytest
from tiny_families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
COLUMNS = ["steps", "correlation", "LoRA", "mixed batch", "several images", "export", "resume"]
# The file whose tests fill a column; test_engines_on_cpu.py fills the others.
FILLED_BY = {"steps": "test_family_runs_on_cpu.py"}


def written() -> dict[str, dict[str, str]]:
    """The table, by the `model_type` of a family."""
    lines = PAGE.read_text().partition("| family")[2].partition("\n\n")[0].splitlines()
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.split("`")[1]: dict(zip(columns[1:], cells, strict=True)) for name, *cells in rows}


def test_the_table_has_every_family() -> None:
    table = written()
    assert list(table) == list(FAMILIES)
    assert all(list(cells) == COLUMNS for cells in table.values())


# After all others of this folder, by its name; the only one that needs what they found.
@pytest.mark.full_stack
def test_the_table_says_what_the_tests_of_this_session_found(
    matrix: dict[str, dict[str, str]], request: pytest.FixtureRequest
) -> None:
    table = written()
    for name, cells in matrix.items():
        assert cells == {column: table[name][column] for column in cells}, name
    ran = {(item.path.name, item.callspec.params["family"].name) for item in request.session.items if _of_family(item)}
    for name in FAMILIES:
        filled = [one for one in COLUMNS if (FILLED_BY.get(one, "test_engines_on_cpu.py"), name) in ran]
        assert not set(filled) - matrix[name].keys(), name


def _of_family(item: Any) -> bool:
    return hasattr(item, "callspec") and "family" in item.callspec.params
