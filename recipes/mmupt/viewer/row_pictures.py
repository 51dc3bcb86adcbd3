"""The images of rows by id, from the training or evaluation files of a run."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

from mmupt.reports.encoded_pictures import encode_anew
from verl_ext.datasets.parquet_reader import read_ids, read_row

# Encoded pictures in the cache, including the small ones of lists.
PICTURES_KEPT = 256


class RowPictures:
    """Finds rows by id and encodes their images for a browser; the files are indexed at the first request."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._places: dict[str, tuple[Path, int]] | None = None
        self._lock = Lock()
        self.picture = lru_cache(PICTURES_KEPT)(self._picture)

    def _picture(self, id_: str, number: int, longest_side: int | None) -> tuple[str, bytes]:
        """The media type and bytes of an image of a row, numbered from 0; see `encode_anew`.

        Raises:
            KeyError: no file has a row of this id.
            IndexError: the row has no such image.
            ValueError: file, row or image cannot be read.
        """
        file, row = self._index()[id_]
        return encode_anew(read_row(file, row, ("images",))["images"][number]["bytes"], longest_side)

    def count(self, id_: str) -> int:
        """The number of images of a row, 0 if no file has it; ValueError if file or row cannot be read."""
        if id_ not in self._index():
            return 0
        file, row = self._index()[id_]
        return len(read_row(file, row, ("images",))["images"])

    def _index(self) -> dict[str, tuple[Path, int]]:
        with self._lock:
            if self._places is None:
                self._places = {
                    id_: (file, row)
                    for file in self._files
                    # If a data set has been moved since, only its pictures are missing.
                    if file.is_file()
                    for row, id_ in enumerate(read_ids(file))
                }
            return self._places
