"""The one row format of every data set, and the one way to write it.

A split is two parquet files: `NAME.parquet`, which the trainer reads and which holds no answer, and
`NAME.truth.parquet`, which maps `id` to the true `answer` for evaluations. A `manifest.json` beside them records the
parameters and the SHA-256 of every file. Where rows come from is the business of the other modules of this package.

Columns of `NAME.parquet`:
    id             str, unique over all splits of the data set
    data_source    str, the name of the data set
    prompt         list of messages {"role", "content"}; one "<image>" in the content for each image, in order
    images         list of {"bytes"}, each an encoded PNG or JPEG
    question_type  str, the stratum by which metrics may be split
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PROMPT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("question_type", pa.string()),
    ]
)
TRUTH_SCHEMA = pa.schema([("id", pa.string()), ("answer", pa.string())])
MANIFEST = "manifest.json"
ROWS_PER_GROUP = 256


@dataclass(frozen=True)
class Row:
    """One question with its images and its true answer, before the answer is put aside.

    `question` has one "<image>" for each of `images`, which are encoded files.
    """

    id: str
    data_source: str
    question: str
    images: tuple[bytes, ...]
    question_type: str
    answer: str

    def __post_init__(self) -> None:
        placeholders = self.question.count("<image>")
        if placeholders != len(self.images):
            raise ValueError(f"row {self.id}: {placeholders} <image> in the question, {len(self.images)} images")

    def without_answer(self) -> dict[str, Any]:
        """The row of `NAME.parquet`."""
        return {
            "id": self.id,
            "data_source": self.data_source,
            "prompt": [{"role": "user", "content": self.question}],
            "images": [{"bytes": image} for image in self.images],
            "question_type": self.question_type,
        }

    def truth(self) -> dict[str, str]:
        """The row of `NAME.truth.parquet`."""
        return {"id": self.id, "answer": self.answer}


def prompts_path(folder: Path, split: str) -> Path:
    """Where the questions of a split lie."""
    return folder / f"{split}.parquet"


def truth_path(folder: Path, split: str) -> Path:
    """Where the true answers of a split lie."""
    return folder / f"{split}.truth.parquet"


def write_dataset(folder: Path, splits: Mapping[str, Iterable[Row]], parameters: Mapping[str, Any]) -> bool:
    """Write every split and the manifest, or do nothing where they are already there.

    Args:
        folder: where the files go; created if need be.
        splits: the rows of each split by its name. Lazy iterables are not consumed when there is nothing to do.
        parameters: what determines the rows, as JSON can hold it.

    Returns:
        Whether anything was written: False when the folder has the files of these parameters, unchanged.

    Raises:
        ValueError: two rows share an id.
    """
    parameters = dict(json.loads(json.dumps(parameters)))
    if _is_written(folder, list(splits), parameters):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for split, rows in splits.items():
        _write_split(folder, split, rows, seen)
    manifest = {"parameters": parameters, "sha256": {path.name: _sha256(path) for path in _paths(folder, list(splits))}}
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, folder / MANIFEST)
    return True


def _paths(folder: Path, splits: list[str]) -> list[Path]:
    return [path for split in splits for path in (prompts_path(folder, split), truth_path(folder, split))]


def _is_written(folder: Path, splits: list[str], parameters: dict[str, Any]) -> bool:
    manifest_path = folder / MANIFEST
    if not manifest_path.exists():
        return False
    manifest = json.loads(manifest_path.read_text())
    paths = _paths(folder, splits)
    return (
        manifest["parameters"] == parameters
        and all(path.exists() for path in paths)
        and manifest["sha256"] == {path.name: _sha256(path) for path in paths}
    )


def _write_split(folder: Path, split: str, rows: Iterable[Row], seen: set[str]) -> None:
    prompts, truth = prompts_path(folder, split), truth_path(folder, split)
    temporary_prompts, temporary_truth = prompts.with_suffix(".tmp"), truth.with_suffix(".tmp")
    iterator = iter(rows)
    with (
        pq.ParquetWriter(temporary_prompts, PROMPT_SCHEMA) as prompt_writer,
        pq.ParquetWriter(temporary_truth, TRUTH_SCHEMA) as truth_writer,
    ):
        while group := list(islice(iterator, ROWS_PER_GROUP)):
            for row in group:
                if row.id in seen:
                    raise ValueError(f"{prompts}: the id {row.id} is given twice")
                seen.add(row.id)
            prompt_writer.write_table(
                pa.Table.from_pylist([row.without_answer() for row in group], schema=PROMPT_SCHEMA)
            )
            truth_writer.write_table(pa.Table.from_pylist([row.truth() for row in group], schema=TRUTH_SCHEMA))
    os.replace(temporary_truth, truth)
    os.replace(temporary_prompts, prompts)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
