"""Training sets of the methods: their columns, and writing and reading them.

`responses.parquet` is for supervised fine-tuning, `pairs.parquet` for DPO. The responses of every stage are also saved
in the format of `responses.parquet`. Columns:
    id          str, unique: the id of the row and the number of the (chosen) response
    prompt      list of messages {"role", "content"} with one "<image>" per image, as in `mmupt_data.row_schema`; the
                recipe's instruction is included, trainers add nothing
    images      list of {"bytes"}, each an encoded image file
    response    str; pairs have `chosen` and `rejected` instead
    baseline    {"method", "stage", "model", "sample", "prompt_sha256", "score"}: the method, the stage whose file has
                the (chosen) response, the model that generated it, its number among the responses to its prompt, the
                SHA-256 of the text of the prompt it was generated from, and the method's score (null: none)
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmupt_data.parquet_writer import write_rows
from verl_ext.datasets.parquet_reader import IMAGES, PROMPT, stored_rows

# Responses to one prompt repeat its images. Each image is stored once if the images of a row group fit in this size.
DICTIONARY_BYTES = 1 << 28

_ORIGIN = pa.struct(
    [
        ("method", pa.string()),
        ("stage", pa.string()),
        ("model", pa.string()),
        ("sample", pa.int64()),
        ("prompt_sha256", pa.string()),
        ("score", pa.float64()),
    ]
)


def _schema(*texts: str) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("prompt", PROMPT),
            ("images", IMAGES),
            *((text, pa.string()) for text in texts),
            ("baseline", _ORIGIN),
        ]
    )


RESPONSES = _schema("response")
PAIRS = _schema("chosen", "rejected")


@dataclass(frozen=True)
class Origin:
    """The column `baseline`."""

    method: str
    stage: str
    model: str
    sample: int
    prompt_sha256: str
    score: float | None


@dataclass(frozen=True)
class TrainingExample:
    """A row: a prompt with its images, the texts by column, and the origin of the (chosen) response."""

    id: str
    prompt: list[dict[str, str]]
    images: tuple[bytes, ...]
    texts: dict[str, str]
    origin: Origin

    def as_row(self) -> dict[str, Any]:
        """The row as written to the file."""
        images = [{"bytes": image} for image in self.images]
        return {"id": self.id, "prompt": self.prompt, "images": images, **self.texts, "baseline": asdict(self.origin)}


def write_set(path: Path, schema: pa.Schema, examples: Iterable[TrainingExample]) -> int:
    """Write a training set, atomically replacing the file, and return the number of its rows."""
    rows = (example.as_row() for example in examples)
    # Repeated images are stored once per row group, so only the number of rows limits a group.
    return write_rows(path, schema, rows, max_bytes=sys.maxsize, dictionary_pagesize_limit=DICTIONARY_BYTES)


def read_set(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a training set in small batches, without the column `baseline`.

    Raises:
        ValueError: a column is missing; the message names the file.
    """
    columns = training_columns(schema)
    if missing := [name for name in columns if name not in (names := pq.read_schema(path).names)]:
        raise ValueError(f"{path} has no column {', '.join(missing)} (found: {', '.join(names)}): see {__name__}")
    return stored_rows(path, columns)


def training_columns(schema: pa.Schema) -> list[str]:
    """The columns that a trainer reads."""
    return [name for name in schema.names if name != "baseline"]
