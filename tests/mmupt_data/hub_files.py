"""Read the files of a prepared data set."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmupt_data.writer import read_manifest


def rows_of(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def truth_of(folder: Path, split: str) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in rows_of(folder / f"{split}.truth.parquet")}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest
