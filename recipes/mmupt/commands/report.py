"""Rewrite the report of a run, or compare evaluations with the paper. Nothing is trained or generated.

RUN: scores before and after training on the same questions, and curves over its steps, as report.md (also printed),
report.json and report.png in the folder of the run.

--paper: the scores of evaluations next to the paper's, as results.md (also printed), results.json and results.png.
Missing or outdated scores are computed as `mmupt score` does.

    mmupt report runs/mmupt_tiny
    mmupt report --paper runs/eval/Qwen2.5-VL-7B-Instruct runs/eval/mmupt_mathvista --output runs/eval
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Write and print the report."""
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="folder of a run (`mmupt.run_folder`)")
    parser.add_argument("--paper", type=Path, nargs="+", metavar="EVALUATION", help="output folders of `mmupt eval`")
    parser.add_argument("--output", type=Path, default=Path("runs/eval"), help="output of --paper (%(default)s)")
    arguments = parser.parse_args(words)
    if (arguments.run is None) == (arguments.paper is None):
        parser.error("give either RUN or --paper with evaluations")
    from mmupt.evaluation.report_results import read_scores, write_results
    from mmupt.training.run_report import write_report

    with as_messages(OSError, ValueError):
        if arguments.paper:
            print(write_results(arguments.output, read_scores(arguments.paper)))
        else:
            print(write_report(arguments.run))
