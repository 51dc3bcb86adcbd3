"""The names of metrics are declared once, and the documentation lists all of them."""

import re
from pathlib import Path

import verl_ext
from verl_ext import metric_names

VOTE_METRICS = {value for value in vars(metric_names).values() if isinstance(value, str) and value.startswith("vote/")}


def test_the_documentation_lists_every_metric_of_the_vote() -> None:
    table = Path("docs/vote.md").read_text().split("## Metrics of a step")[1].split("\n## ")[0]
    listed = {name for row in table.split("\n| ") for name in re.findall(r"`(vote/\w+)`", row.split(" | ")[0])}
    assert listed == VOTE_METRICS


def test_no_other_module_spells_the_name_of_a_metric() -> None:
    declared = Path(metric_names.__file__)
    folders = (Path(verl_ext.__file__).parent, Path("recipes/mmupt"), Path("data/mmupt_data"), Path("benchmarks"))
    files = [file for folder in folders for file in folder.rglob("*.py") if file != declared]
    assert not [file for file in files if any(f'"{name}"' in file.read_text() for name in VOTE_METRICS)]
