"""The images of rows by id, from the files that a run was trained or evaluated on."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mmupt.reports.encoded_pictures import encode_anew
from verl_ext.datasets.rows_by_id import RowsById

# Encoded pictures that are kept, the small ones of lists among them.
PICTURES_KEPT = 256


class RowPictures:
    """Finds rows by id, whose images are encoded anew for a browser."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._rows = RowsById(files)
        self.picture = lru_cache(PICTURES_KEPT)(self._picture)

    def _picture(self, id_: str, number: int, longest_side: int | None) -> tuple[str, bytes]:
        """The media type and bytes of an image of a row, numbered from 0; see `encode_anew`.

        Raises:
            KeyError, IndexError: no file has such a row, or the row no such image.
            ValueError: file, row or image cannot be read.
        """
        return encode_anew(self._rows.read(id_, ("images",))["images"][number]["bytes"], longest_side)

    def count(self, id_: str) -> int:
        """The number of images of a row, 0 if no file has it; ValueError if file or row cannot be read."""
        return len(self._rows.read(id_, ("images",))["images"]) if id_ in self._rows else 0
