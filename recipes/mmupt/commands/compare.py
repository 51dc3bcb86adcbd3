"""Compare two models on the same questions, from saved responses. Generates nothing.

A and B are folders of evaluations, or single files of responses; every benchmark in both is compared. Writes compare.md
(also printed), compare.json, compare.png and compare.html, a page of questions gained and lost; `mmupt view` shows all
questions of the comparison.

    mmupt compare runs/eval/base runs/eval/trained --output runs/compare
    mmupt view runs/compare
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import add_answer_settings, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Compare the two evaluations."""
    parser.add_argument("a", type=Path, metavar="A", help="folder of an evaluation, or a file of responses")
    parser.add_argument("b", type=Path, metavar="B", help="the same for the other model; differences are B - A")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="output folder (%(default)s)")
    add_answer_settings(parser)
    arguments = parser.parse_args(words)
    from mmupt.evaluation.compare_files import compare_evaluations, read_evaluation, write_comparison

    settings = arguments.extraction, arguments.rule
    with as_messages(OSError, ValueError):
        a, b = (read_evaluation(path, *settings) for path in (arguments.a, arguments.b))
        print(write_comparison(arguments.output, compare_evaluations(a, b), *settings))
