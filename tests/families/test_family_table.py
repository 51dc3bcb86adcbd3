"""The table of docs/families.md has every family of the tests. Each test of a family checks its own cell."""

from family_table import documented_cells
from tiny_families import FAMILIES

COLUMNS = ["steps", "correlation", "LoRA", "mixed batch", "several images", "export", "resume"]


def test_the_table_has_every_family() -> None:
    table = documented_cells()
    assert list(table) == list(FAMILIES)
    assert all(list(cells) == COLUMNS for cells in table.values())
