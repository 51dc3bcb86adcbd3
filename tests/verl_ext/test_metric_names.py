"""The names of metrics are declared once, and the documentation lists all of them."""

import re
from pathlib import Path

from verl_ext import metric_names

VOTE_METRICS = {value for value in vars(metric_names).values() if isinstance(value, str) and value.startswith("vote/")}


def test_the_documentation_lists_every_metric_of_the_vote() -> None:
    table = Path("docs/vote.md").read_text().split("## Metrics of a step")[1].split("\n## ")[0]
    listed = {name for row in table.split("\n| ") for name in re.findall(r"`(vote/\w+)`", row.split(" | ")[0])}
    assert listed == VOTE_METRICS
