"""The data sets that TTRL trains and evaluates on (arXiv 2504.16084): competition mathematics, text only.

The data sets come from the hub, or as TTRL publishes them: a folder with `train.json` and `test.json`, which hold the
same rows.

    git clone https://github.com/PRIME-RL/TTRL
    mmupt data aime2024 --source TTRL/verl/data/AIME-TTT
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, Licence, as_text


def read_problem(row: Mapping[str, Any]) -> Content:
    """Read a row in the hub's form, in which the answers of AMC are numbers."""
    return Content(as_text(row["problem"]), (), str(row["answer"]))


def read_prompt(row: Mapping[str, Any]) -> Content:
    """Read a row in TTRL's form."""
    return Content(as_text(row["prompt"]), (), as_text(row["answer"]))


HUB = Layout({"problem": "text", "answer": "anything"}, read_problem)
TTRL = Layout({"prompt": "text", "answer": "text", "source": "text", "id": "text"}, read_prompt)

# The other two data sets state no licence.
AMC_LICENCE = Licence("Apache 2.0", "https://huggingface.co/datasets/AI-MO/aimo-validation-amc")

for name, summary, path, split, rows in (
    ("aime2024", "AIME 2024, 30 text-only questions", "HuggingFaceH4/aime_2024", "train", 30),
    ("amc", "AMC 12 of 2022 and 2023, 83 text-only questions", "AI-MO/aimo-validation-amc", "train", 83),
    ("math500", "MATH-500, 500 text-only questions", "HuggingFaceH4/MATH-500", "test", 500),
):
    DATA_SETS.register(
        HubDataset(
            name=name,
            summary=summary,
            path=path,
            splits={"test": HubSplit(split, rows=rows)},
            layouts=(HUB, TTRL),
            licence=AMC_LICENCE if name == "amc" else None,
        )
    )
