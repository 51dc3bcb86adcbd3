"""MATH-Vision: 3,040 competition questions in 16 subjects and five levels, and a testmini of 304 of them.

Every row has one image, in which all that the question refers to as "<image1>", "<image2>" ... is put together, so that
these tags are left out and the image goes in front.
"""

from collections.abc import Mapping
from typing import Any

from data.hub import NUMBERED_PLACEHOLDER, Content, Holds, HubDataset, Layout, image_bytes, text, with_choices


def _layout(image: str) -> Layout:
    def read(row: Mapping[str, Any]) -> Content:
        choices = tuple(map(text, row["options"])) or None if row["options"] else None
        question = NUMBERED_PLACEHOLDER.sub("", text(row["question"])).strip()
        return Content(
            with_choices(question, choices),
            (image_bytes(row[image]),),
            text(row["answer"]),
            id=text(row["id"]),
            question_type="multi_choice" if choices else "free_form",
            choices=choices,
            metadata={name: row[name] for name in ("level", "subject")},
        )

    columns: dict[str, Holds] = {
        "id": "text",
        "question": "text",
        "options": "list",
        "answer": "text",
        "level": "anything",
        "subject": "text",
        image: "image",
    }
    return Layout(columns, read)


DATASETS = (
    HubDataset(
        name="mathvision",
        summary="MATH-Vision, 3,040 questions of competitions, and its testmini of 304",
        path="MathLLMs/MathVision",
        splits={"test": "test", "testmini": "testmini"},
        layouts=(_layout("decoded_image"), _layout("image")),
    ),
)
