"""Make a data set ready, and say what was dropped.

python -m mmupt_data.prepare geometry3k [--source FOLDER]
python -m mmupt_data.prepare --list
"""

import argparse
import re
import sys
from pathlib import Path
from typing import get_args

from mmupt_data.catalog import data_set, data_sets
from mmupt_data.writer import MANIFEST, BadRows, read_manifest, summary

# Where data sets lie: each in a folder of its name.
FOLDER = Path("datasets")
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


def describe(folder: Path) -> str:
    """What a folder's manifest says: rows of each split, what was dropped, has problems or is converted, licences."""
    manifest = read_manifest(folder)
    assert manifest is not None
    lines = []
    for split, rows in manifest["rows"].items():
        dropped = [row for row in manifest["dropped"] if row["split"] == split]
        kept = [row for row in manifest.get("kept", []) if row["split"] == split]
        lines.append(f"{folder / split}.parquet: {rows} rows, {len(dropped)} dropped, {len(kept)} kept with problems")
        lines += [f"  dropped: {line}" for line in summary(dropped)]
        lines += [f"  kept: {line}" for line in summary(kept)]
        for change, found in manifest["changed"][split].items():
            lines.append(f"  {found['images']} images converted when decoded: {change}, the first: {found['first']}")
        official, read = manifest.get("official", {}).get(split), rows + len(dropped)
        if official not in (None, read):
            lines.append(f"  the source is not whole: it has {read} of {official} rows")
    for suffix, left_out in manifest["parameters"].get("left_out", {}).items():
        lines.append(f"  left out: {left_out['files']} x {suffix}, the first: {left_out['first']}")
    if manifest["dropped"] or manifest.get("kept"):
        lines.append(f"all of them: {folder / MANIFEST}")
    for licence, rows in manifest.get("licences", {}).items():
        restricted = ": not for commercial use" if NON_COMMERCIAL.search(licence) else ""
        lines.append(f"licence of {rows} rows: {licence or 'not known'}{restricted}")
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
