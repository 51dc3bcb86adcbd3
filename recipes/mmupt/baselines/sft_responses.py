"""Checks a file of responses before supervised fine-tuning; `training_sets` defines its columns."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmupt.baselines.prompt_rows import placeholder_problem
from mmupt.baselines.training_sets import RESPONSES, read_set
from mmupt.baselines.training_settings import TrainingSettings
from mmupt.evaluation.messages import prompt_tokens
from mmupt.evaluation.prompt_processor import load_processor
from verl_ext.datasets.response_tokens import turn_tokens


def check_responses(file: Path, model: str, settings: TrainingSettings) -> int:
    """Check every row of a set of responses before anything expensive starts, and return the number of rows.

    `model` is the folder or hub name of the model whose processor counts the tokens.

    Raises:
        ValueError: a column is missing, there are too few rows for a batch, or a row cannot be used; the message names
            file, row and id.
    """
    examples = read_set(file, RESPONSES)
    rows = pq.read_metadata(file).num_rows
    if rows < settings.batch_size:
        raise ValueError(
            f"{file} has {rows} rows, fewer than a batch of {settings.batch_size}: set a smaller batch_size, or loosen "
            "the rule that keeps responses"
        )
    processor = load_processor(model, settings.chat_template_kwargs)
    for number, row in enumerate(examples):
        if problem := _problem(row, processor, settings.limits, settings.max_length):
            raise ValueError(f"{file}, row {number}, id {row['id']}: {problem}")
    return rows


def _problem(row: dict[str, Any], processor: Any, limits: dict[str, int], max_length: int) -> str | None:
    if not (row["response"] or "").strip():
        return "the response is empty: leave the row out"
    if not row["prompt"] or row["prompt"][-1]["role"] != "user":
        return "the prompt must end with a user message for the response to answer"
    if problem := placeholder_problem(row):
        return problem
    if row["images"] and processor.image_processor is None:
        return "it has images, but the model reads only text: leave the row out"
    try:
        text_tokens, image_tokens = prompt_tokens(row, processor, None, limits)
    except (ValueError, OSError) as error:
        return str(error)
    if 0 in image_tokens:
        return f"image {image_tokens.index(0)}, scaled to the limits, has a side of 0 pixels: leave the row out"
    length = text_tokens + sum(image_tokens) + len(turn_tokens(processor.tokenizer, row["response"]))
    if length > max_length:
        return f"{length} tokens, {sum(image_tokens)} of them images, over max_length={max_length}: leave the row out"
    return None
