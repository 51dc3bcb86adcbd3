"""Make a data set ready, and say what was dropped.

python -m data.prepare geometry3k [--source FOLDER]
python -m data.prepare --list
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

from data.catalog import data_set, data_sets
from data.writing import MANIFEST, BadRows, read_manifest

# Where data sets lie: each in a folder of its name.
FOLDER = Path("datasets")


def describe(folder: Path) -> str:
    """What a folder's manifest says: rows of each split, what was dropped of it and why."""
    manifest = read_manifest(folder)
    assert manifest is not None
    lines = []
    for split, rows in manifest["rows"].items():
        dropped = [row for row in manifest["dropped"] if row["split"] == split]
        lines.append(f"{folder / split}.parquet: {rows} rows, {len(dropped)} dropped")
        kinds = Counter(problem["kind"] for row in dropped for problem in row["problems"])
        for kind, count in kinds.most_common():
            row, problem = next((row, p) for row in dropped for p in row["problems"] if p["kind"] == kind)
            lines.append(f"  {count} x {kind}, the first: row {row['row']}, id {row['id']}: {problem['detail']}")
    if manifest["dropped"]:
        lines.append(f"  all of them: {folder / MANIFEST}")
    return "\n".join(lines)


def main() -> None:
    """Make the data set that the command line names."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="?", help="a name that --list shows")
    parser.add_argument("--list", action="store_true", help="list the data sets")
    parser.add_argument("--source", help="a local copy, a parquet file, or another hub repository")
    parser.add_argument("--revision", help="of the hub repository (default: the newest)")
    parser.add_argument("--output", type=Path, help=f"folder of the files (default: {FOLDER}/NAME)")
    parser.add_argument("--bad-rows", choices=get_args(BadRows), default="drop", help="what to do about a bad row")
    parser.add_argument("--workers", type=int, help="threads that check images (default: one a core)")
    arguments = parser.parse_args()
    if arguments.list or not arguments.name:
        known = data_sets()
        for name, one in known.items():
            print(f"{name:{max(map(len, known))}}  {one.summary}")
        return
    folder = arguments.output or FOLDER / arguments.name
    try:
        written = data_set(arguments.name).prepare(
            folder, arguments.source, arguments.revision, arguments.bad_rows, arguments.workers, progress=True
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{folder}: {'written' if written else 'up to date'}")
    print(describe(folder))


if __name__ == "__main__":
    main()
