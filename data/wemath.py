"""We-Math testmini: 1,740 questions with options, 525 problems together with their two or three steps.

`ID` names a problem and `key` the step of it, or the whole.
"""

import re
from collections.abc import Mapping
from typing import Any

from data.hub import Content, HubDataset, Layout, RowError, images_bytes, text, with_choices

# "A. 12 cm;B. 5 cm": an option begins where a letter and a point follow a semicolon.
OPTION = re.compile(r"(?:^|;)\s*([A-Z])\s*[.．]\s*")  # noqa: RUF001


def options_of(option: str) -> tuple[str, ...]:
    """The texts of the options "A. ...;B. ...", in their order; RowError where letters are missing or out of order."""
    _, *parts = OPTION.split(option.strip())
    letters, texts = parts[::2], parts[1::2]
    if not letters or letters != [chr(ord("A") + index) for index in range(len(letters))]:
        raise RowError(f"options A., B. ... expected, found {option[:80]!r}")
    return tuple(one.strip().rstrip(";").strip() for one in texts)


def read(row: Mapping[str, Any]) -> Content:
    """A row of `We-Math/We-Math`; the answer is a letter."""
    choices = options_of(text(row["option"]))
    return Content(
        with_choices(text(row["question"]), choices),
        images_bytes(row["image_path"]),
        text(row["answer"]),
        id=f"{row['ID']}@{row['key']}",
        question_type="multi_choice",
        choices=choices,
        metadata={name: row[name] for name in ("ID", "key", "question number", "knowledge concept")},
    )


DATASETS = (
    HubDataset(
        name="wemath",
        summary="We-Math testmini, 1,740 questions: 525 problems and their steps",
        path="We-Math/We-Math",
        splits={"testmini": "testmini"},
        layouts=(
            Layout(
                {
                    "ID": "anything",
                    "key": "text",
                    "question number": "anything",
                    "knowledge concept": "anything",
                    "question": "text",
                    "option": "text",
                    "answer": "text",
                    "image_path": "images",
                },
                read,
            ),
        ),
    ),
)
