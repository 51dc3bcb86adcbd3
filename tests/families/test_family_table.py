"""The table of docs/families.md lists all tested families. Each test of a family checks its cell of the table."""

from family_table import documented_cells
from tiny_families import FAMILIES

COLUMNS = ["steps", "correlation", "LoRA", "mixed batch", "several images", "export", "resume"]


def test_the_table_has_every_family() -> None:
    table = documented_cells()
    assert list(table) == list(FAMILIES)
    assert all(list(cells) == COLUMNS for cells in table.values())
