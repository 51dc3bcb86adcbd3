"""We-Math testmini: 1,740 questions with options, 525 problems together with their two or three steps.

`ID` names a problem and `key` the step of it, or the whole.
"""

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from mmupt_data.hub import Content, HubDataset, Layout, Licence, Split, image_bytes, text, with_choices

# "A. 12 cm;B. 5 cm": an option begins where a letter and a point follow a semicolon and text follows them; in "point
# ;O.;B. Yes" the first is the name of a point.
OPTION = re.compile(r"(?:^|;)\s*([A-Z])\s*[.．]\s*(?=[^;\s])")  # noqa: RUF001
# "A. 45° B. 60° ;C. 120°": where the semicolon is missing.
SPACED_OPTION = re.compile(r"(?:^|;|\s)\s*([A-Z])\s*[.．]\s*(?=[^;\s])")  # noqa: RUF001


def options_of(option: str) -> tuple[str, ...] | None:
    """The texts of the options "A. ...;B. ...", in their order; None where it is not sure where one begins."""
    for pattern in (OPTION, SPACED_OPTION):
        _, *parts = pattern.split(option.strip())
        letters, texts = parts[::2], parts[1::2]
        if len(letters) > 1 and letters == list(ascii_uppercase[: len(letters)]):
            return tuple(one.strip().rstrip(";").strip() for one in texts)
    return None


def read(row: Mapping[str, Any]) -> Content:
    """A row of `We-Math/We-Math`; the answer is a letter. Options that cannot be told apart stay as they came."""
    question, option = text(row["question"]), text(row["option"])
    choices = options_of(option)
    return Content(
        with_choices(question, choices) if choices else f"{question}\nChoices:\n{option}",
        (image_bytes(row["image_path"]),),
        text(row["answer"]),
        id=f"{row['ID']}@{row['key']}",
        question_type="multi_choice",
        choices=choices,
        metadata={name: row[name] for name in ("ID", "key", "question number", "knowledge concept", "option")},
    )


DATASETS = (
    HubDataset(
        name="wemath",
        summary="We-Math testmini, 1,740 questions: 525 problems and their steps",
        path="We-Math/We-Math",
        splits={"testmini": Split("testmini", rows=1740)},
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
                    "image_path": "image",
                },
                read,
            ),
        ),
        licence=Licence("CC BY-NC 4.0", "https://github.com/We-Math/We-Math#-license"),
    ),
)
