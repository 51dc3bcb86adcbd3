"""Sees who opens a truth file, for the tests of what must do without one."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest


def watch_truth(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fail whoever opens a truth file from now on; returns the names of all files that are opened."""
    opened: list[str] = []

    def watched(function: Any) -> Any:
        def opens(source: Any, *args: Any, **kwargs: Any) -> Any:
            opened.append(str(source))
            if str(source).endswith(".truth.parquet"):
                raise AssertionError(f"{source} was opened")
            return function(source, *args, **kwargs)

        return opens

    for name in ("read_table", "read_schema", "read_metadata", "ParquetFile"):
        monkeypatch.setattr(pq, name, watched(getattr(pq, name)))
    for name in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    return opened
