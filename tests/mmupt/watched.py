"""Detects reads of ground truth files, for tests of code that must not read them."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest


def watch_truth(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make every later read of a ground truth file fail; return a list that collects the names of all opened files."""
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
