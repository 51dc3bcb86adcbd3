"""The rows that questions are written about: images and questions, never ground truth."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mmupt_data.row_schema import NO_QUESTION, Provenance, question_text
from verl_ext.datasets.ground_truth import check_unlabelled
from verl_ext.datasets.parquet_reader import whole_rows

COLUMNS = ("id", "data_source", "prompt", "images", "question_type", "choices", "provenance", "licence")


@dataclass(frozen=True)
class Parent:
    """A row with images; `image` is a digest of the images, `question` is None if the row has no question."""

    id: str
    data_source: str
    question: str | None
    images: tuple[bytes, ...]
    image: str
    choices: tuple[str, ...] | None = None
    provenance: Provenance | None = None
    licence: str | None = None


def read_parents(files: Sequence[Path], limit: int | None = None) -> tuple[list[Parent], int]:
    """Read the rows with images among the first `limit` rows of some files, and count the rows without images.

    Raises:
        ValueError: a file or row cannot be read, a column name suggests a ground truth, or two rows share an id.
    """
    parents: dict[str, Parent] = {}
    without = 0
    for row in islice((row for file in files for row in _rows(file)), limit):
        if row["id"] in parents:
            raise ValueError(f"two rows of {', '.join(map(str, files))} have the id {row['id']!r}")
        if not row["images"]:
            without += 1
            continue
        question = question_text(row["prompt"])
        has_question = question and row.get("question_type") != NO_QUESTION
        images = tuple(image["bytes"] for image in row["images"])
        digests = b"".join(hashlib.sha256(image).digest() for image in images)
        parents[row["id"]] = Parent(
            id=row["id"],
            data_source=row["data_source"],
            question=question if has_question else None,
            images=images,
            image=hashlib.sha256(digests).hexdigest(),
            choices=tuple(row["choices"]) if row.get("choices") else None,
            provenance=Provenance(**row["provenance"]) if row.get("provenance") else None,
            licence=row.get("licence"),
        )
    return list(parents.values()), without


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    check_unlabelled(file)
    yield from whole_rows(file, COLUMNS)
