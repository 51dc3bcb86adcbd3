"""ThinkLite-VL-hard-11k: questions that Qwen2.5-VL-7B mostly fails at; the paper's failure case."""

from collections.abc import Mapping
from typing import Any

from mmupt_data.catalog import DATA_SETS
from mmupt_data.hub import Content, HubDataset, HubSplit, Layout, as_text, images_bytes, with_choices


def _layout(answer: str, images: str, choices: bool) -> Layout:
    def read(row: Mapping[str, Any]) -> Content:
        options = tuple(map(as_text, row["choices"])) if choices and row["choices"] else None
        question = as_text(row["problem"])
        # Some questions already contain their options.
        if options and not all(option in question for option in options):
            question = with_choices(question, options)
        return Content(
            question,
            images_bytes(row[images]),
            as_text(row[answer]),
            question_type="multi_choice" if options else "free_form",
            choices=options,
        )

    return Layout(
        {images: "images", "problem": "text", answer: "text", **({"choices": "list"} if choices else {})}, read
    )


DATA_SETS.register(
    HubDataset(
        name="thinklite",
        summary="ThinkLite-VL-hard-11k, 11k questions that the base model mostly fails at",
        path="russwang/ThinkLite-VL-hard-11k",
        splits={"train": HubSplit("train", training=True)},
        # The image is an encoded file as bare bytes. Column names differ between the copies that people use.
        layouts=tuple(
            _layout(answer, images, choices)
            for choices in (True, False)
            for answer in ("ground_truth", "answer", "ground truth")
            for images in ("image", "images")
        ),
    )
)
