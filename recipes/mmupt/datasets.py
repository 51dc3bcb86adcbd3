"""Every data set by its name: those of `mmupt_data.catalog` and those of the benchmarks.

python -m mmupt.datasets geometry3k [--source FOLDER]
python -m mmupt.datasets --list
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from mmupt.benchmarks import BENCHMARKS
from mmupt_data.catalog import DATA_SETS, DataSet
from mmupt_data.prepare import FOLDER, describe
from mmupt_data.writer import BadRows


def data_sets() -> dict[str, DataSet]:
    """Every data set by its name, sorted."""
    found = {**DATA_SETS, **{name: benchmark.data for name, benchmark in BENCHMARKS.items()}}
    return dict(sorted(found.items()))


def data_set(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    known = data_sets()
    if name not in known:
        raise ValueError(f"there is no data set {name!r}; known data sets: {', '.join(known)}")
    return known[name]


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
