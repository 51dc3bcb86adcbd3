"""Compare two models on the same questions, from their responses alone. Generates nothing.

A and B are folders of evaluations, or single files of responses; every benchmark that both have is compared. Writes
compare.md (printed, too), compare.json, compare.png and compare.html, a page of questions gained and lost; `mmupt view`
shows all questions of the comparison.

    mmupt compare runs/eval/base runs/eval/trained --output runs/compare
    mmupt view runs/compare
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import Choices, answer_rules, extractions


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Compare the two evaluations of the command line."""
    parser.add_argument("a", type=Path, metavar="A", help="folder of an evaluation, or a file of responses")
    parser.add_argument("b", type=Path, metavar="B", help="what it is compared with; differences are B - A")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="output folder (%(default)s)")
    parser.add_argument(
        "--extraction", help="where the answer is in a response; default: as the prompt asked"
    ).choices = Choices(extractions)
    parser.add_argument(
        "--rule", help="which rule compares answers; default: as recorded, or canonical"
    ).choices = Choices(answer_rules)
    arguments = parser.parse_args(words)
    from mmupt.evaluation.compare_files import compare_evaluations, read_evaluation, write_comparison

    settings = arguments.extraction, arguments.rule
    try:
        a, b = (read_evaluation(path, *settings) for path in (arguments.a, arguments.b))
        comparisons = compare_evaluations(a, b)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(write_comparison(arguments.output, comparisons, *settings))
