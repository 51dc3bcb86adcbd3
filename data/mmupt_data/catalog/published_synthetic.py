"""The six sets of questions that Qwen2.5-VL-7B wrote and the paper's authors published.

There are two strategies for each of three training sets: `in_context` writes a new question from an image and its
question, `direct` from the image alone. The answers are the model's, not ground truth, and stay out of the truth files.
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, Licence, as_text, images_bytes

ORIGINS = {"geometry3k": "geometry3k", "geoqa": "GeoQA-8K", "mmr1": "MMR1"}
# The licences that the sets' pages state, as far as the pages have been read.
LICENCES = {
    "MMR1-direct": Licence("CC BY-NC 4.0", "https://huggingface.co/datasets/WaltonFuture/MMR1-direct-synthesizing")
}
STRATEGIES = {"in_context": "in-context", "direct": "direct"}


def _layout(column: str) -> Layout:
    def read(row: Mapping[str, Any]) -> Content:
        return Content(as_text(row["problem"]), images_bytes(row[column]), answer=None)

    return Layout({column: "images", "problem": "text"}, read)


for _origin, _published in ORIGINS.items():
    for _strategy, _hyphenated in STRATEGIES.items():
        DATA_SETS.register(
            HubDataset(
                name=f"{_origin}_{_strategy}",
                summary=f"questions written by Qwen2.5-VL-7B about the images of {_published}, strategy {_strategy}",
                path=f"WaltonFuture/{_published}-{_hyphenated}-synthesizing",
                splits={"train": HubSplit("train", training=True)},
                layouts=(_layout("images"), _layout("image")),
                licence=LICENCES.get(f"{_published}-{_hyphenated}"),
            )
        )
