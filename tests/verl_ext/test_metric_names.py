"""The names of metrics are declared once, and the documentation lists all of them."""

import re
from pathlib import Path

import verl_ext
from verl_ext import metric_names

NAMES = {value for name, value in vars(metric_names).items() if name.isupper()}
VOTE_METRICS = {name for name in NAMES if re.fullmatch(r"vote/\w+", name)}


def test_the_documentation_lists_every_metric_of_the_vote() -> None:
    table = Path("docs/vote.md").read_text().split("## Metrics of a step")[1].split("\n## ")[0]
    listed = {name for row in table.split("\n| ") for name in re.findall(r"`(vote/\w+)`", row.split(" | ")[0])}
    assert listed == VOTE_METRICS


def test_no_other_module_spells_the_name_of_a_metric() -> None:
    declared = Path(metric_names.__file__)
    folders = (Path(verl_ext.__file__).parent, Path("recipes/mmupt"), Path("data/mmupt_data"), Path("benchmarks"))
    files = [file for folder in folders for file in folder.rglob("*.py") if file != declared]
    assert not [file for file in files if any(f'"{name}"' in file.read_text() for name in NAMES)]
