"""The training rows that a method uses and their prompts, never their ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from mmupt_data.parquet_writer import write_rows
from mmupt_data.row_schema import PLACEHOLDER, PROMPT_SCHEMA, question_text, user_text
from verl_ext.datasets.dropped_rows import dropped_ids
from verl_ext.datasets.parquet_reader import read_ids, whole_rows
from verl_ext.datasets.row_format import with_instruction

COLUMNS = ("id", "prompt", "images", "choices")


def placeholder_problem(row: Mapping[str, Any]) -> str | None:
    """Describe a mismatch between the numbers of `<image>` and of images in a row; None if they match."""
    images = len(row["images"] or [])
    placeholders = sum(message["content"].count(PLACEHOLDER) for message in row["prompt"])
    return None if placeholders == images else f"{placeholders} {PLACEHOLDER} in the prompt, {images} images"


@dataclass(frozen=True)
class PromptRow:
    """A row with its prompt.

    prompt: messages, with the recipe's instruction after the question. question: the text of the user messages without
    instruction and image placeholders. images: encoded files. choices: the options of a multiple-choice question.
    """

    id: str
    prompt: list[dict[str, str]]
    question: str
    images: tuple[bytes, ...]
    choices: tuple[str, ...] | None

    @property
    def text(self) -> str:
        """The text of the user messages with the instruction, without image placeholders."""
        return user_text(self.prompt).replace(PLACEHOLDER, "")


def draw_rows(target: Path, files: Sequence[str], listing: str | None, count: int | None, seed: int) -> None:
    """Draw `count` training rows from a recipe's files (None: all), and write them to `target` in their order.

    Files are in the format of `mmupt_data.row_schema`. Rows that the recipe drops are never drawn, see `listing` in
    `verl_ext.datasets.dropped_rows`.

    Raises:
        ValueError: a file lacks a column, or there are fewer than `count` rows.
    """
    dropped = dropped_ids(listing, files)
    ids = [id_ for file in files for id_ in read_ids(file)]
    usable = [id_ for id_ in ids if id_ not in dropped]
    if count is not None and count > len(usable):
        raise ValueError(f"mmupt.baseline.rows={count}: only {len(usable)} rows of {', '.join(files)} can be used")
    taken = set(usable if count is None else Random(f"baseline/{seed}").sample(usable, count))
    rows = (row for file in files for row in whole_rows(file, PROMPT_SCHEMA.names, dropped) if row["id"] in taken)
    write_rows(target, PROMPT_SCHEMA, rows)


def read_prompt_rows(file: Path, instruction: str | None) -> list[PromptRow]:
    """Read a file in the format of `mmupt_data.row_schema`, adding the instruction after each question."""
    return [_prompt_row(row, instruction) for row in whole_rows(file, COLUMNS)]


def _prompt_row(row: dict[str, Any], instruction: str | None) -> PromptRow:
    *before, last = row["prompt"]
    question = {**last, "content": with_instruction(last["content"], instruction)}
    return PromptRow(
        id=row["id"],
        prompt=[*before, question],
        question=question_text(row["prompt"]),
        images=tuple(image["bytes"] for image in row["images"] or ()),
        choices=tuple(row["choices"]) if row["choices"] else None,
    )
