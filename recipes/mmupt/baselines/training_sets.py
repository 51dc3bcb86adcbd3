"""The sets of a method, those that it trains on above all: their columns, and how they are written.

`responses.parquet` is what supervised fine-tuning gets, `pairs.parquet` what DPO gets; all that was said in a stage has
the columns of the former, so that it can be trained on as well. Columns:
    id          str, unique: the row and the number of the (chosen) response
    prompt      list of messages {"role", "content"} with one "<image>" for each image, as in `mmupt_data.row_schema`;
    it is all
                that the model is asked, the instruction of the recipe included: trainers add nothing to it
    images      list of {"bytes"}, each an encoded image file
    response    str; of pairs instead `chosen` and `rejected`
    baseline    {"method", "stage", "model", "sample", "prompt_sha256", "score"}: the method, the stage whose file has
                the (chosen) response, the model that said it, the number of the response among those to its prompt,
                the SHA-256 of the text that it was asked with, and what the method thinks of it (null: nothing)
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# A row group is in memory as a whole.
ROWS_PER_GROUP = 256
# Responses to one prompt repeat its images: as long as those of a row group fit in here, each is stored once.
DICTIONARY_BYTES = 1 << 28

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
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
            ("prompt", _MESSAGES),
            ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
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
class Example:
    """A row: a prompt with its images, the texts by their columns, and where they come from."""

    id: str
    prompt: list[dict[str, str]]
    images: tuple[bytes, ...]
    texts: dict[str, str]
    origin: Origin

    def as_row(self) -> dict[str, Any]:
        """The row of the file."""
        images = [{"bytes": image} for image in self.images]
        return {"id": self.id, "prompt": self.prompt, "images": images, **self.texts, "baseline": asdict(self.origin)}


def write_set(path: Path, schema: pa.Schema, examples: Iterable[Example]) -> int:
    """Write a set in place of any that is there, so that its name never shows a part of it; return its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    written = 0
    group: list[dict[str, Any]] = []
    with pq.ParquetWriter(temporary, schema, dictionary_pagesize_limit=DICTIONARY_BYTES) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            group.clear()

        for example in examples:
            group.append(example.as_row())
            written += 1
            if len(group) == ROWS_PER_GROUP:
                flush()
        if group:
            flush()
    os.replace(temporary, path)
    return written
