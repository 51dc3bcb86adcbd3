"""Truth lives apart from the data: `X.parquet` has no answers, its sidecar `X.truth.parquet` has `id` and `answer`.

Read for validation and for diagnostics only.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq


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
