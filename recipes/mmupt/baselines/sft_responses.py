"""Files of responses to learn, and what is wrong with one.

Their columns are `id`, `prompt` and `images` of `mmupt_data.row_schema`, and `response`, a text. A prompt is whole as
it is: no instruction is added to it. How responses are chosen, and how they are learnt, is not here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmupt.baselines.prompt_rows import placeholder_problem
from mmupt.evaluation.messages import prompt_tokens
from verl_ext.datasets.response_tokens import turn_tokens

COLUMNS = ("id", "prompt", "images", "response")
# Rows whose images are in memory at a time.
ROWS_AT_ONCE = 64


def check_responses(file: Path, model: str, limits: dict[str, int], max_length: int, at_least: int) -> int:
    """Look through a file before anything expensive starts, and return the number of its rows.

    Args:
        file: with the columns of this module.
        model: whose tokens are counted, a folder or hub name.
        limits: `min_pixels` and `max_pixels` into which images are scaled when they are read, where there are such.
        max_length: tokens that a row may have.
        at_least: rows, those of a batch.

    Raises:
        ValueError: a column is missing, there are fewer rows than a batch has, or a row cannot be used; with the file,
            the row and its id.
    """
    if missing := [name for name in COLUMNS if name not in (names := pq.read_schema(file).names)]:
        raise ValueError(f"{file} has no column {', '.join(missing)} (found: {', '.join(names)})")
    rows = pq.read_metadata(file).num_rows
    if rows < at_least:
        raise ValueError(
            f"{file} has {rows} rows, fewer than a batch of {at_least}: set a smaller batch_size, or loosen "
            "the rule that keeps responses"
        )
    # Seconds of imports, which a file that is refused before need not wait for.
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    for number, row in enumerate(_rows(file)):
        if problem := _problem(row, processor, limits, max_length):
            raise ValueError(f"{file}, row {number}, id {row['id']}: {problem}")
    return rows


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=list(COLUMNS)):
            yield from batch.to_pylist()


def _problem(row: dict[str, Any], processor: Any, limits: dict[str, int], max_length: int) -> str | None:
    if not (row["response"] or "").strip():
        return "the response is empty: leave the row out"
    if not row["prompt"] or row["prompt"][-1]["role"] != "user":
        return "the prompt must end with a message of the user, which the response answers"
    if problem := placeholder_problem(row):
        return problem
    try:
        of_text, of_images = prompt_tokens(row, processor, None, limits)
    except (ValueError, OSError) as error:
        return str(error)
    if 0 in of_images:
        return f"image {of_images.index(0)}, scaled to the limits, is left without a side: leave the row out"
    length = of_text + sum(of_images) + len(turn_tokens(processor.tokenizer, row["response"]))
    if length > max_length:
        return f"{length} tokens, {sum(of_images)} of them images, over max_length={max_length}: leave the row out"
    return None
