"""MathVerse testmini: 788 problems in five versions, from all said in words to all drawn.

The question is the benchmark's `question`; where everything is drawn, it is empty there and `query_wo` asks for what is
in the picture. The prompts of the official evaluation are kept in the metadata. Two versions of a problem may have the
same question and image, by design.
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.hub import Content, HubDataset, Layout, Licence, Split, image_bytes, text

KEPT = ("problem_index", "problem_version", "metadata", "query_wo", "query_cot", "question_for_eval")


def read(row: Mapping[str, Any]) -> Content:
    """A row of `AI4Math/MathVerse`, part testmini; options are part of the question's text."""
    return Content(
        text(row["question"]).strip() or text(row["query_wo"]),
        (image_bytes(row["image"]),),
        text(row["answer"]),
        id=str(row["sample_index"]),
        question_type=text(row["question_type"]),
        metadata={name: row[name] for name in KEPT},
    )


DATASETS = (
    HubDataset(
        name="mathverse",
        summary="MathVerse testmini, 788 problems in five versions",
        path="AI4Math/MathVerse",
        splits={"testmini": Split("testmini", rows=3940)},
        layouts=(
            Layout(
                {
                    "sample_index": "anything",
                    "problem_index": "anything",
                    "problem_version": "text",
                    "question": "text",
                    "image": "image",
                    "answer": "text",
                    "question_type": "text",
                    "metadata": "anything",
                    "query_wo": "text",
                    "query_cot": "text",
                    "question_for_eval": "text",
                },
                read,
            ),
        ),
        configuration="testmini",
        licence=Licence("MIT", "https://github.com/ZrrSkywalker/MathVerse/blob/main/LICENSE"),
    ),
)
