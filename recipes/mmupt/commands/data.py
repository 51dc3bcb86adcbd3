"""Prepare a data set: download or read it, check every row, write parquet files, and report dropped rows.

Answers go into separate files, which training does not open. A data set that is up to date is not prepared again.

    mmupt data --list
    mmupt data geometry3k
    mmupt data mathvista --source /copies/MathVista
    mmupt data images --source my/photos --output datasets/mine
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmupt.commands import Choices, as_messages
from mmupt.completion import use_completer


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Prepare the data set, or list all."""
    data_set_name = parser.add_argument("name", nargs="?", metavar="NAME", help="a data set that --list shows")
    use_completer(data_set_name, _names)
    parser.add_argument("--list", action="store_true", help="list the data sets")
    parser.add_argument("--source", help="a local copy, a parquet file, or another hub repository")
    parser.add_argument("--revision", help="revision of the hub repository (default: the newest)")
    parser.add_argument("--output", type=Path, help="output folder (default: datasets/NAME)")
    bad_rows = parser.add_argument("--bad-rows", default="drop", help="drop bad rows, or stop at one (drop)")
    bad_rows.choices = Choices("mmupt_data.writer:BadRows")
    parser.add_argument("--workers", type=int, help="threads that check images (default: one per core)")
    arguments = parser.parse_args(words)
    if not arguments.name and (arguments.source or arguments.revision or arguments.output):
        parser.error("--source, --revision and --output need a data set: give its NAME")
    if arguments.workers is not None and arguments.workers < 1:
        parser.error("--workers must be at least 1")
    from mmupt.console import printable
    from mmupt.datasets import data_set, data_sets
    from mmupt_data.prepare import FOLDER, describe

    if arguments.list or not arguments.name:
        known = data_sets()
        for name, entry in known.items():
            print(f"{name:{max(map(len, known))}}  {entry.summary}")
        return
    folder = arguments.output or FOLDER / arguments.name
    with as_messages(ValueError, OSError):
        written = data_set(arguments.name).prepare(
            folder, arguments.source, arguments.revision, arguments.bad_rows, arguments.workers, progress=True
        )
    print(f"{folder}: {'written' if written else 'up to date'}")
    print(printable(describe(folder)))


def _names(**_: Any) -> Mapping[str, str]:
    from mmupt.datasets import data_sets

    return {name: entry.summary for name, entry in data_sets().items()}
