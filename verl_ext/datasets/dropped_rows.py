"""The rows that a recipe leaves out of its data files, listed by the launcher in `data.dropped_rows`."""

import json
from collections.abc import Iterable
from pathlib import Path


def dropped_ids(listing: str | None, files: Iterable[str]) -> frozenset[str]:
    """Return the ids of the rows to leave out of `files`.

    `listing` is a JSON file that maps a data file to objects with an `id`; null or a missing file drops none.
    """
    if listing is None or not Path(listing).is_file():
        return frozenset()
    rows = json.loads(Path(listing).read_text())
    return frozenset(row["id"] for file in files for row in rows.get(file, []))
