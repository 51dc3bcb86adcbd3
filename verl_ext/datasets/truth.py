"""Truth lives apart from the data: `X.parquet` has no answers, its sidecar `X.truth.parquet` has `id` and `answer`.

Read for validation and for diagnostics only.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Columns by which data sets bring the truth along, in lower case with "_" for spaces and hyphens.
TRUTH_COLUMNS = frozenset(
    {
        "answer",
        "answers",
        "correct",
        "correct_answer",
        "correct_choice",
        "correct_option",
        "final_answer",
        "gold",
        "gold_answer",
        "ground_truth",
        "groundtruth",
        "gt",
        "gt_answer",
        "label",
        "labels",
        "rationale",
        "reference_answer",
        "reward_model",
        "solution",
        "solutions",
        "target",
        "truth",
    }
)


def file_list(files: str | Iterable[str] | None) -> list[str]:
    """Return what a configuration gives as one file, as several or as null, as a list."""
    return [files] if isinstance(files, str) else list(files or [])


def sidecar_of(data_file: str | Path) -> Path:
    """Return the path of the truth sidecar of a data file, whether it exists or not."""
    return Path(data_file).with_suffix(".truth.parquet")


def read_truth(data_files: Iterable[str | Path]) -> dict[str, str]:
    """Return the answer by row id from the sidecars of `data_files`; files without a sidecar add nothing.

    Raises ValueError when a sidecar lacks a column or two sidecars give one id different answers.
    """
    truth: dict[str, str] = {}
    for data_file in data_files:
        sidecar = sidecar_of(data_file)
        if not sidecar.is_file():
            continue
        columns = pq.read_schema(sidecar).names
        if not {"id", "answer"} <= set(columns):
            raise ValueError(f"{sidecar} must have the columns id and answer, but has {', '.join(columns)}")
        for row in pq.read_table(sidecar, columns=["id", "answer"]).to_pylist():
            if truth.setdefault(row["id"], row["answer"]) != row["answer"]:
                raise ValueError(f"{sidecar} contradicts another sidecar about the answer of row {row['id']!r}")
    return truth


def read_metadata(data_files: Iterable[str | Path]) -> dict[str, str]:
    """Return the column `metadata` of the sidecars of `data_files` by row id, where it is there and not null."""
    metadata: dict[str, str] = {}
    for data_file in data_files:
        sidecar = sidecar_of(data_file)
        if sidecar.is_file() and "metadata" in pq.read_schema(sidecar).names:
            rows = pq.read_table(sidecar, columns=["id", "metadata"]).to_pylist()
            metadata |= {row["id"]: row["metadata"] for row in rows if row["metadata"] is not None}
    return metadata


def truth_columns(schema: pa.Schema | pa.StructType, prefix: str = "") -> list[str]:
    """Return the dotted names of all columns, and of fields of structs in them, that by their name hold a truth."""
    found = []
    for field in schema:
        name = f"{prefix}{field.name}"
        if field.name.lower().replace(" ", "_").replace("-", "_") in TRUTH_COLUMNS:
            found.append(name)
        elif pa.types.is_struct(field.type):
            found += truth_columns(field.type, f"{name}.")
    return found


def check_unlabelled(file: str | Path) -> None:
    """Raise ValueError, naming the columns, for a training file that carries a truth."""
    if found := truth_columns(pq.read_schema(file)):
        raise ValueError(
            f"{file}: a label-free recipe trains on no file with a truth in it ({', '.join(found)}): move it to "
            f"{sidecar_of(file)} (columns id and answer), or drop it; a supervised recipe (data.supervised=True) reads "
            "the sidecar"
        )
