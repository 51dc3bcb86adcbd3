"""Reads what a data set of the hub was made into."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def rows_of(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def truth_of(folder: Path, split: str) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in rows_of(folder / f"{split}.truth.parquet")}
