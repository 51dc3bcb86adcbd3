"""The rows of data files that a recipe leaves out, as the launcher lists them in `data.dropped_rows`."""

import json
from collections.abc import Iterable
from pathlib import Path


def dropped_ids(listing: str | None, files: Iterable[str]) -> frozenset[str]:
    """Return the ids of the rows of `files` that are left out.

    `listing` is a JSON file that maps a data file to objects with an `id`; null, or no such file, for none.
    """
    if listing is None or not Path(listing).is_file():
        return frozenset()
    rows = json.loads(Path(listing).read_text())
    return frozenset(row["id"] for file in files for row in rows.get(file, []))
