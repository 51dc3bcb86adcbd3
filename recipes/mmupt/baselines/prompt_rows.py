"""The training rows that a method uses: which of a recipe's files, and what is asked about each. Never their truth."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmupt_data.fingerprints import question_of
from mmupt_data.row_schema import PLACEHOLDER, PROMPT_SCHEMA
from verl_ext.datasets.dropped_rows import dropped_ids
from verl_ext.datasets.parquet_reader import ROWS_PER_BATCH, read_ids, whole_rows

COLUMNS = ("id", "prompt", "images", "choices")


def placeholder_problem(row: Mapping[str, Any]) -> str | None:
    """Say by how many a row has more or fewer `<image>` in its prompt than images; None where they are as many."""
    images = len(row["images"] or [])
    placeholders = sum(message["content"].count(PLACEHOLDER) for message in row["prompt"])
    return None if placeholders == images else f"{placeholders} {PLACEHOLDER} in the prompt, {images} images"


@dataclass(frozen=True)
class AskedRow:
    """A row as a policy is asked it.

    prompt: its messages, with the instruction of the recipe after the question. question: what the user says in them,
    without instruction and places of images. images: encoded files. choices: the options, if it has some.
    """

    id: str
    prompt: list[dict[str, str]]
    question: str
    images: tuple[bytes, ...]
    choices: tuple[str, ...] | None

    @property
    def text(self) -> str:
        """All that the user says, the instruction included, without places of images."""
        return question_of(self.prompt).replace(PLACEHOLDER, "")


def draw_rows(target: Path, files: Sequence[str], listing: str | None, count: int | None, seed: int) -> None:
    """Write the rows of a recipe's files that are used into one file, in their order, in place of any that is there.

    Args:
        target: the file, in the format of `mmupt_data.row_schema`.
        files: parquet files in that format.
        listing: of the rows that the recipe leaves out, see `verl_ext.datasets.dropped_rows`.
        count: how many rows are drawn of the others; None for all.
        seed: of the draw.

    Raises:
        ValueError: a file lacks a column, or there are fewer rows.
    """
    dropped = dropped_ids(listing, files)
    ids = [id_ for file in files for id_ in read_ids(file)]
    usable = [id_ for id_ in ids if id_ not in dropped]
    if count is not None and count > len(usable):
        raise ValueError(f"mmupt.baseline.rows={count}: only {len(usable)} rows of {', '.join(files)} can be used")
    taken = set(usable if count is None else Random(f"baseline/{seed}").sample(usable, count))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp")
    with pq.ParquetWriter(temporary, PROMPT_SCHEMA) as writer:
        for file in files:
            found = (row for row in whole_rows(file, PROMPT_SCHEMA.names, dropped) if row["id"] in taken)
            while rows := list(islice(found, ROWS_PER_BATCH)):
                writer.write_table(pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA))
    os.replace(temporary, target)


def read_rows(file: Path, instruction: str | None) -> list[AskedRow]:
    """The rows of a file in the format of `mmupt_data.row_schema`; `instruction` follows each question after a
    space."""
    return [_asked(row, instruction) for row in whole_rows(file, COLUMNS)]


def _asked(row: dict[str, Any], instruction: str | None) -> AskedRow:
    *before, last = row["prompt"]
    asked = last if instruction is None else {**last, "content": f"{last['content']} {instruction}"}
    return AskedRow(
        id=row["id"],
        prompt=[*before, asked],
        question=question_of(row["prompt"]).replace(PLACEHOLDER, " ").strip(),
        images=tuple(image["bytes"] for image in row["images"] or ()),
        choices=tuple(row["choices"]) if row["choices"] else None,
    )
