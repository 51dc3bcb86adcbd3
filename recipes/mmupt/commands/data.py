"""Prepare a data set: download or read it, check every row, write parquet files, and say what was dropped.

The answers go into files of their own, which training does not open. A second run does nothing.

    mmupt data --list
    mmupt data geometry3k
    mmupt data mathvista --source /copies/MathVista
    mmupt data images --source my/photos --output datasets/mine
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mmupt.datasets import data_set, data_sets
from mmupt_data.prepare import FOLDER, describe
from mmupt_data.writer import BadRows


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Prepare the data set of the command line."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a name that --list shows")
    parser.add_argument("--list", action="store_true", help="list the data sets")
    parser.add_argument("--source", help="a local copy, a parquet file, or another hub repository")
    parser.add_argument("--revision", help="of the hub repository (default: the newest)")
    parser.add_argument("--output", type=Path, help=f"folder of the files (default: {FOLDER}/NAME)")
    parser.add_argument("--bad-rows", choices=get_args(BadRows), default="drop", help="what to do about a bad row")
    parser.add_argument("--workers", type=int, help="threads that check images (default: one per core)")
    arguments = parser.parse_args(words)
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
