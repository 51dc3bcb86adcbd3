"""Finds rows of data files by their ids."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from verl_ext.datasets.parquet_reader import read_ids, read_row


class RowsById:
    """The rows of several files, which are indexed at the first request. Thread-safe."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._places: dict[str, tuple[Path, int]] | None = None
        self._lock = Lock()

    def __contains__(self, id_: str) -> bool:
        return id_ in self._index()

    def read(self, id_: str, columns: Sequence[str]) -> dict[str, Any]:
        """Read these columns of a row.

        Raises:
            KeyError: no file has a row with this id.
            ValueError: the file or the row cannot be read.
        """
        file, row = self._index()[id_]
        return read_row(file, row, columns)

    def _index(self) -> dict[str, tuple[Path, int]]:
        with self._lock:
            if self._places is None:
                self._places = {
                    id_: (file, row)
                    for file in self._files
                    # Rows of a data set that has been moved count as missing.
                    if file.is_file()
                    for row, id_ in enumerate(read_ids(file))
                }
            return self._places
