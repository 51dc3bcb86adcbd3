"""The table of docs/families.md has every family that the tests run, with what they check of it."""

from pathlib import Path

from tiny_families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def expected(family: Family) -> list[str]:
    images = "yes" if family.has_images else "no images"
    export = "yes" if family.in_vllm else "transformers"
    return ["2", ">= 0.9999", family.adapters, images, images, export, "yes"]


def test_the_table_says_what_is_tested() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| Q") or line.startswith("| GLM")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    found = {name.split("`")[1]: cells for name, *cells in rows}
    assert found == {family.name: expected(family) for family in FAMILIES.values()}
