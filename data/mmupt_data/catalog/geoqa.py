"""GeoQA-8K: geometry questions with one drawing each; the paper's second training set.

Two repositories publish it: the authors' has the answers in a column, an older one has them in `<answer>` tags.
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import PROBLEMS, Content, HubDataset, HubSplit, Layout, RowError, as_text, images_bytes
from verl_ext.answers import extract_answer


def read_solution(row: Mapping[str, Any]) -> Content:
    """Read a row of `leonardPKU/GEOQA_R1V_Train_8K`, whose `solution` is `<answer> ... </answer>`."""
    answer = extract_answer(as_text(row["solution"]), "answer_tag")
    if answer is None:
        raise RowError(f"no <answer> tags in the solution {row['solution'][:60]!r}")
    return Content(as_text(row["problem"]), images_bytes(row["image"]), answer)


DATA_SETS.register(
    HubDataset(
        name="geoqa",
        summary="GeoQA-8K, 8k questions about geometry drawings",
        path="WaltonFuture/GEOQA_R1V_Train_8K",
        splits={"train": HubSplit("train", training=True)},
        layouts=(PROBLEMS, Layout({"image": "image", "problem": "text", "solution": "text"}, read_solution)),
    )
)
