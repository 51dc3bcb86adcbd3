"""Images of rows by id, from the data files of a run."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mmupt.reports.encoded_pictures import encode_anew
from verl_ext.datasets.rows_by_id import RowsById

# Number of encoded pictures to cache, small and full ones.
CACHED_PICTURES = 256


class RowPictures:
    """Finds rows by id and re-encodes their images for a browser."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._rows = RowsById(files)
        self.picture = lru_cache(CACHED_PICTURES)(self._picture)

    def _picture(self, id_: str, number: int, longest_side: int | None) -> tuple[str, bytes]:
        """Return the media type and bytes of an image of a row, numbered from 0; see `encode_anew`.

        Raises:
            KeyError, IndexError: no file has the row, or the row has no such image.
            ValueError: the file, row or image cannot be read.
        """
        return encode_anew(self._rows.read(id_, ("images",))["images"][number]["bytes"], longest_side)

    def count(self, id_: str) -> int:
        """Return the number of images of a row, 0 if no file has the row; ValueError if it cannot be read."""
        return len(self._rows.read(id_, ("images",))["images"]) if id_ in self._rows else 0
