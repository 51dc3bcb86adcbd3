"""Declares data sets of the Hugging Face hub; `mmupt_data.hub_reader` reads them.

A data set has a `Layout` for each form in which it is published. The first layout whose columns all exist is used; if
there is none, the error names the expected columns and those that were found.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from mmupt_data.data_set import DataSet
from mmupt_data.row_schema import PLACEHOLDER
from mmupt_data.writer import WriteOptions

Holds = Literal["text", "image", "images", "list", "anything"]
# Data sets write "<image1>" or "<image 1>".
NUMBERED_PLACEHOLDER = re.compile(r"<image ?(\d+)>")


class ColumnError(ValueError):
    """The columns of a source match no layout; the message names the expected ones and those that were found."""


class RowError(ValueError):
    """A row of a source cannot be read; the message says why."""


class SourceError(ValueError):
    """A source cannot be loaded or lacks a split; the message says what was expected, what was found, and the fix."""


@dataclass(frozen=True)
class Licence:
    """The licence of a data set: its `name` in the source's words, and `stated_in`, the page that states it."""

    name: str
    stated_in: str


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set.

    name: the split's name in the source.
    training: bad rows of training splits may be dropped; all other splits are for evaluation and keep every row.
    rows: the publisher's number of rows, which exposes partial copies; None if unknown.
    optional: whether a source may lack the split.
    """

    name: str
    training: bool = False
    rows: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class Content:
    """The fields of `mmupt_data.row_schema.Row` that a layout reads from a row of a source.

    `question` may have image placeholders, see `with_placeholders`. `id` is None if the source has no ids; then rows
    are numbered.
    """

    question: str
    images: tuple[bytes, ...]
    answer: str | None
    id: str | None = None
    question_type: str = "free_form"
    choices: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """One form in which a data set is published.

    columns: the names of the needed columns and the kind of their values: "text", an encoded "image", ...
    read: returns the content of a row, with images as bytes; raises RowError for a row that it cannot read.
    """

    columns: Mapping[str, Holds]
    read: Callable[[Mapping[str, Any]], Content]


@dataclass(frozen=True)
class HubDataset(DataSet):
    """A data set of the hub.

    path: the repository on the hub.
    splits: the splits by their names in this project.
    layouts: the forms in which it is published.
    configuration: the hub's name for a part of the repository.
    licence: None if no known page states one.
    """

    name: str
    summary: str
    path: str
    splits: Mapping[str, HubSplit]
    layouts: tuple[Layout, ...]
    configuration: str | None = None
    licence: Licence | None = None

    def write(self, folder: Path, source: str | None, revision: str | None, options: WriteOptions) -> bool:
        # Imported lazily: the datasets library takes seconds to load, and scoring does not need it.
        from mmupt_data.hub_reader import write

        return write(self, folder, source, revision, options)


def _read_problem(row: Mapping[str, Any]) -> Content:
    return Content(as_text(row["problem"]), images_bytes(row["images"]), as_text(row["answer"]))


# The layout of most training sets.
PROBLEMS = Layout({"images": "images", "problem": "text", "answer": "text"}, _read_problem)


def with_placeholders(question: str, images: int) -> str:
    """The question with a placeholder for each image; a question without placeholders gets them in front.

    The tags "<image1>", "<image2>" ... are placeholders if each image has one, in order; otherwise they are text that
    refers to parts of a drawing.
    """
    if PLACEHOLDER in question:
        return question
    numbers = [int(number) for number in NUMBERED_PLACEHOLDER.findall(question)]
    if images and numbers == list(range(1, images + 1)):
        return NUMBERED_PLACEHOLDER.sub(PLACEHOLDER, question)
    return PLACEHOLDER * images + question


def with_choices(question: str, choices: Sequence[str] | None) -> str:
    """The question followed by its options on separate lines, in MathVista's wording."""
    return "\n".join([question, "Choices:", *listed_choices(choices)]) if choices else question


def listed_choices(choices: Sequence[str]) -> list[str]:
    """Each option as "(A) text"."""
    return [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]


def image_bytes(value: Any) -> bytes:
    """The encoded image in a column's value, empty if there is none. Paths are never opened."""
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return found if isinstance(found, bytes) else b""


def images_bytes(value: Any) -> tuple[bytes, ...]:
    """The encoded images in a column's value, which holds an image, a list of images or null."""
    if value is None:
        return ()
    return tuple(image_bytes(one) for one in value) if isinstance(value, list) else (image_bytes(value),)


def as_text(value: Any) -> str:
    """A column's value as text; raises RowError if it is null or of another type."""
    if not isinstance(value, str):
        raise RowError(f"text expected, found {type(value).__name__}")
    return value
