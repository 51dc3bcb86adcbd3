"""MATH-Vision: 3,040 competition questions in 16 subjects and five levels, and a testmini of 304 of them.

Every row has one image, in which all that the question and its options call "<image1>", "<image2>" ... is merged. The
image goes in front and the tags stay in the text, as in `geninput` of the authors' `models/Qwen-VL.py`, which makes the
prompt for merged images.
"""

from collections.abc import Mapping
from typing import Any

from mmupt_data.hub import Content, Holds, HubDataset, Layout, Licence, Split, image_bytes, text, with_choices
from mmupt_data.row_schema import PLACEHOLDER


def _layout(image: str) -> Layout:
    def read(row: Mapping[str, Any]) -> Content:
        choices = tuple(map(text, row["options"])) or None if row["options"] else None
        return Content(
            PLACEHOLDER + with_choices(text(row["question"]), choices),
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
        splits={"test": Split("test", rows=3040), "testmini": Split("testmini", rows=304)},
        layouts=(_layout("decoded_image"), _layout("image")),
        licence=Licence("MIT", "https://github.com/mathllm/MATH-V/blob/main/LICENSE"),
    ),
)
