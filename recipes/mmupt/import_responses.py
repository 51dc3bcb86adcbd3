"""Bring responses that another program generated into a file of responses, to be scored by the same rules.

    python -m recipes.mmupt.import_responses FILE --format vlmevalkit \
        --data datasets/mathvista/testmini.parquet --output runs/eval/NAME/mathvista.jsonl
    python -m recipes.mmupt.score runs/eval/NAME/mathvista.jsonl

Formats: `jsonl` (docs/evaluation.md), `lmms-eval` (its log of samples) and `vlmevalkit` (its table of predictions).
Rows that cannot be used are named, and the others imported. Scores in the file are not read.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import get_args

from recipes.mmupt.evaluation.elsewhere import Format, read_asked, read_elsewhere
from recipes.mmupt.evaluation.responses import parameters_path, write_responses
from verl_ext.answers import Extraction


def import_responses(
    file: Path,
    format_: Format,
    data: Path,
    output: Path,
    model: str | None = None,
    extraction: Extraction = "boxed",
    replace: bool = False,
) -> int:
    """Write the responses in a file of another program to `output`; name the bad rows on stderr.

    Args:
        file: what the other program wrote.
        format_: in which format.
        data: the questions, in the format of `data.schema` with the truth beside it.
        output: the file of responses.
        model: what made the responses.
        extraction: where scoring finds the answers in them.
        replace: whether an output that is there is written anew.

    Returns:
        How many responses there are.

    Raises:
        FileExistsError: the output is there already.
        ValueError: the file cannot be read, or nothing in it can be used.
    """
    for written in (output, parameters_path(output)):
        if written.exists() and not replace:
            raise FileExistsError(f"{written} is there already: name another --output, or --replace it")
    responses, bad_lines = read_elsewhere(file, format_, read_asked(data))
    for line, why in bad_lines:
        print(f"{file}, line {line}, is left out: {why}", file=sys.stderr)
    if not responses:
        raise ValueError(f"{file}: nothing in it is a response to a question of {data}")
    parameters = {
        "model": model,
        "data": {str(data): _sha256(data)},
        "imported_from": {"file": str(file), "format": format_, "sha256": _sha256(file)},
        "extraction": extraction,
    }
    write_responses(output, responses, parameters)
    return len(responses)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Import the file of the command line."""
    parser = argparse.ArgumentParser(description="Bring responses made elsewhere into a file of responses.")
    parser.add_argument("file", type=Path, help="what the other program wrote")
    parser.add_argument("--format", choices=get_args(Format), required=True, help="which program, or jsonl")
    parser.add_argument("--data", type=Path, required=True, help="parquet file of data/schema.py with the questions")
    parser.add_argument("--output", type=Path, required=True, help="JSONL file for the responses")
    parser.add_argument("--model", help="what made the responses, to be written down")
    parser.add_argument(
        "--extraction", choices=get_args(Extraction), default="boxed", help="where answers stand; default: %(default)s"
    )
    parser.add_argument("--replace", action="store_true", help="write an output that is there anew")
    arguments = parser.parse_args()
    try:
        count = import_responses(
            arguments.file,
            arguments.format,
            arguments.data,
            arguments.output,
            arguments.model,
            arguments.extraction,
            arguments.replace,
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"{arguments.output}: {count} responses")


if __name__ == "__main__":
    main()
