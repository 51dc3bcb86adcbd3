"""MathVista testmini: 1,000 questions from 31 data sets, with options or a free answer.

The question is the benchmark's own without its hint about the form of the answer; the hint is in `query`.
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.hub import Content, HubDataset, Layout, Licence, Split, image_bytes, text, with_choices


def read(row: Mapping[str, Any]) -> Content:
    """A row of `AI4Math/MathVista`; the answer to a question with options is the text of one."""
    choices = tuple(map(text, row["choices"])) if row["choices"] else None
    return Content(
        with_choices(text(row["question"]), choices),
        (image_bytes(row["decoded_image"]),),
        text(row["answer"]),
        id=text(row["pid"]),
        question_type=text(row["question_type"]),
        choices=choices,
        metadata={name: row[name] for name in ("query", "unit", "precision", "answer_type", "metadata")},
    )


DATASETS = (
    HubDataset(
        name="mathvista",
        summary="MathVista testmini, 1,000 questions",
        path="AI4Math/MathVista",
        splits={"testmini": Split("testmini", rows=1000)},
        layouts=(
            Layout(
                {
                    "pid": "text",
                    "question": "text",
                    "decoded_image": "image",
                    "choices": "list",
                    "unit": "anything",
                    "precision": "anything",
                    "answer": "text",
                    "question_type": "text",
                    "answer_type": "text",
                    "metadata": "anything",
                    "query": "text",
                },
                read,
            ),
        ),
        licence=Licence(
            "CC BY-SA 4.0, a test set that may not be trained on", "https://github.com/lupantech/MathVista#-license"
        ),
    ),
)
