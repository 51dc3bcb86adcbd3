"""Import responses that another program generated, to score them by the same rules.

Formats: jsonl (docs/evaluation.md), lmms-eval (its log of samples) and vlmevalkit (its table of predictions). Every row
must be the response to exactly one question. If some are not, the error names them and nothing is written, unless
--skip-bad-rows is given. Scores in the file are ignored.

    mmupt import-responses outputs/NAME/NAME_MathVista_MINI.tsv --format vlmevalkit \\
        --data datasets/mathvista/testmini.parquet --output runs/eval/NAME/mathvista.jsonl
    mmupt score runs/eval/NAME/mathvista.jsonl
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import EXTRACTIONS, Choices, as_messages
from verl_ext.counts import pluralize


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Import the file."""
    parser.add_argument("file", type=Path, help="file that the other program wrote")
    format_ = parser.add_argument("--format", required=True, help="the other program, or jsonl")
    format_.choices = Choices("mmupt.evaluation.harness_importers:Format")
    parser.add_argument("--data", type=Path, required=True, help="parquet file with the questions, see `mmupt data`")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file for the responses")
    parser.add_argument("--model", help="name of the model, recorded with the responses")
    extraction = parser.add_argument("--extraction", default="boxed", help="where the answer is in a response (boxed)")
    extraction.choices = Choices(EXTRACTIONS)
    parser.add_argument("--replace", action="store_true", help="overwrite an existing output")
    parser.add_argument("--skip-bad-rows", action="store_true", help="import the good rows instead of none")
    arguments = parser.parse_args(words)
    from mmupt.evaluation.response_import import import_responses

    with as_messages(OSError, ValueError):
        count = import_responses(
            arguments.file,
            arguments.format,
            arguments.data,
            arguments.output,
            arguments.model,
            arguments.extraction,
            arguments.replace,
            arguments.skip_bad_rows,
        )
    print(f"{arguments.output}: {pluralize(count, 'response')}")
