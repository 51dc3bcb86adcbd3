"""Find training rows in evaluation files: the same image or question, or an altered copy.

Writes leakage.html and leakage.json. Exits with 1 if more pairs of rows overlap than allowed.

    mmupt check-leakage --train datasets/mmr1/train.parquet --eval datasets/mathvista/testmini.parquet
    mmupt check-leakage --train my/train.parquet --eval my/a.parquet my/b.parquet --images exact
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import Choices, message_of


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Compare the files; return 1 if more pairs of rows overlap than allowed, else 0."""
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="parquet files to train on")
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="parquet files to evaluate on")
    parser.add_argument("--report", type=Path, default=Path("runs/leakage"), help="output folder (%(default)s)")
    images = parser.add_argument("--images", default="near", help="whether to find altered copies, too (near)")
    images.choices = Choices("mmupt_data.leakage:Images")
    parser.add_argument("--allowed", type=int, default=0, help="pairs of rows that may overlap (%(default)s)")
    arguments = parser.parse_args(words)
    from mmupt.reports.leakage_report import outcome, write_report
    from mmupt_data.leakage import overlaps

    try:
        pairs = overlaps(arguments.train, arguments.eval, arguments.images)
        report = write_report(
            arguments.report, arguments.train, arguments.eval, arguments.images, arguments.allowed, pairs
        )
    except (OSError, ValueError) as error:
        parser.error(message_of(error))
    print(outcome(pairs, arguments.allowed, report))
    return int(len(pairs) > arguments.allowed)
