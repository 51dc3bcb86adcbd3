"""Imports responses that another program generated, to score them by the same rules (`mmupt import-responses`)."""

import sys
from collections import Counter
from pathlib import Path

from mmupt.console import printable
from mmupt.evaluation.harness_importers import Format, read_harness_file
from mmupt.evaluation.question_matching import read_index
from mmupt.evaluation.response_files import parameters_path, write_responses
from mmupt.evaluation.verdicts import AnyExtraction
from verl_ext.counts import pluralize
from verl_ext.files import sha256

# Unusable rows to name.
SHOWN = 100


def import_responses(
    file: Path,
    format_: Format,
    data: Path,
    output: Path,
    model: str | None = None,
    extraction: AnyExtraction = "boxed",
    replace: bool = False,
    skip_bad_rows: bool = False,
) -> int:
    """Write the responses in a file of another harness to `output` and return their number.

    Unusable rows are named on stderr.

    Args:
        file: of another harness, in the format `format_`.
        data: the questions, in the format of `mmupt_data.row_schema` with the ground truth beside it.
        output: the file of responses.
        model: name of the model that made the responses, for the record.
        extraction: where scoring finds the answers in the responses.
        replace: overwrite an existing output.
        skip_bad_rows: leave out unusable rows instead of refusing the file.

    Raises:
        FileExistsError: the output exists, and `replace` is not set.
        ValueError: the file cannot be read, has no usable row, or has unusable rows and `skip_bad_rows` is not set.
    """
    for written in (output, parameters_path(output)):
        if written.exists() and not replace:
            raise FileExistsError(f"{written} is there already: name another --output, or --replace it")
    if not file.is_file():
        raise ValueError(f"{file} is {'a folder' if file.is_dir() else 'missing'}: name a file of the other program")
    responses, bad_rows = read_harness_file(file, format_, read_index(data))
    for line, _, why in bad_rows[:SHOWN]:
        print(printable(f"{file}, line {line}: {why}"), file=sys.stderr)
    if len(bad_rows) > SHOWN:
        print(f"{file}: and {pluralize(len(bad_rows) - SHOWN, 'more row')}", file=sys.stderr)
    counts = ", ".join(f"{count} {problem}" for problem, count in Counter(row.problem for row in bad_rows).items())
    if not responses:
        raise ValueError(f"{file} has no response to a question of {data} ({counts or 'it is empty'})")
    if bad_rows and not skip_bad_rows:
        raise ValueError(
            f"{file}: {pluralize(len(bad_rows), 'row')} cannot be used ({counts}) beside "
            f"{pluralize(len(responses), 'response')} to questions of {data}. Nothing was written; --skip-bad-rows "
            "imports the responses"
        )
    parameters = {
        "model": model,
        "data": {str(data): sha256(data)},
        "imported_from": {
            "file": str(file),
            "format": format_,
            "sha256": sha256(file),
            "skipped_rows": dict(Counter(row.problem for row in bad_rows)),
        },
        "extraction": extraction,
    }
    write_responses(output, responses, parameters)
    return len(responses)
