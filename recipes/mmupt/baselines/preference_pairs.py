"""Pairs of a preferred and a dispreferred response: what is wrong with a file of them, and what a model is fed of it.

A file has the columns `id`, `prompt` and `images` of `mmupt_data.row_schema`, and `chosen` and `rejected`, both str.
How pairs are chosen, and what is learnt from them, is not here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from mmupt.baselines.prompt_rows import placeholder_problem
from mmupt.evaluation.messages import prompt_tokens, rendered
from mmupt_data.row_problems import image_problems
from verl_ext.datasets.response_tokens import turn_tokens

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("id", "prompt", "images", "chosen", "rejected")
# Rows whose images are in memory at a time.
ROWS_AT_ONCE = 64


def check_pairs(file: Path, alike: bool) -> None:
    """Look through a file before anything expensive starts.

    `alike`: whether the rows must all have images, or all have none.

    Raises:
        ValueError: a column is missing, there is no row, or a row cannot be used; with the file, the row and its id.
    """
    if missing := [name for name in COLUMNS if name not in (names := pq.read_schema(file).names)]:
        raise ValueError(f"{file} has no column {', '.join(missing)} (found: {', '.join(names)}): see {__name__}")
    first = None
    for number, row in enumerate(_rows(file)):
        first = first or row
        if problem := _problem(row):
            raise ValueError(f"{file}, row {number}, id {row['id']}: {problem}")
        if alike and bool(row["images"]) != bool(first["images"]):
            raise ValueError(
                f"{file}, row {number}, id {row['id']}: rows with images and rows without, on which processes would "
                "wait for each other's vision tower: train on one process, or on rows of one kind"
            )
    if first is None:
        raise ValueError(f"{file} has no pairs: loosen the rule that chooses them, or give it more responses")


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=list(COLUMNS)):
            yield from batch.to_pylist()


def _problem(row: Mapping[str, Any]) -> str | None:
    for name in ("chosen", "rejected"):
        if row[name] is None:
            return f"{name} is null: a pair has two responses"
    if row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same response, of which nothing can be learnt: leave the pair out"
    if problem := placeholder_problem(row):
        return problem
    images = row["images"] or []
    problems = [one for index, image in enumerate(images) for one in image_problems(image["bytes"], f"image {index}")]
    return f"{problems[0].kind} ({problems[0].detail})" if problems else None


class PairCollator:
    """Makes the tensors of a batch of rows; a `data_collator` of TRL's `DPOTrainer`.

    A prompt is what the rollout makes of the row, see `mmupt.evaluation.messages`. What is learnt are the tokens
    of the responses and of the end of their turn. A response is text and nothing else: where it spells a special token,
    as that of an image, it is letters.

    Args:
        processor: of Qwen2-VL and its successors.
        min_pixels, max_pixels: as the responses were asked for; None for nothing.
    """

    def __init__(self, processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
        self._processor = processor
        self._limits = {
            name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value
        }

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> "dict[str, Tensor]":
        """The tensors of `n` rows, padded to the longest of their `2 * n` sequences, the chosen ones first.

        Returns:
            input_ids, attention_mask, completion_mask, mm_token_type_ids: int64 (2 * n, length).
            pixel_values, image_grid_thw: of all images of all sequences, as the processor makes them; absent where no
                row has images.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        prompts = [self._prompt(row) for row in rows]
        sequences: dict[str, list[Tensor]] = {
            name: [] for name in ("input_ids", "completion_mask", "mm_token_type_ids")
        }
        for name in ("chosen", "rejected"):
            for row, prompt in zip(rows, prompts, strict=True):
                asked, said = prompt["input_ids"][0], torch.tensor(turn_tokens(self._processor.tokenizer, row[name]))
                sequences["input_ids"].append(torch.cat([asked, said]))
                sequences["completion_mask"].append(torch.cat([torch.zeros_like(asked), torch.ones_like(said)]))
                kinds = prompt["mm_token_type_ids"][0]
                sequences["mm_token_type_ids"].append(torch.cat([kinds, kinds.new_zeros(len(said))]))
        sequences["attention_mask"] = [torch.ones_like(ids) for ids in sequences["input_ids"]]
        # Padding is on the right, and masked: which token it is made of is of no consequence.
        batch = {name: pad_sequence(tensors, batch_first=True) for name, tensors in sequences.items()}
        for name in ("pixel_values", "image_grid_thw"):
            if of_images := [prompt[name] for prompt in prompts if name in prompt]:
                batch[name] = torch.cat(of_images * 2)
        return batch

    def length(self, row: Mapping[str, Any]) -> int:
        """Tokens of the longer one of a row's two sequences; no image is scaled for it."""
        of_text, of_images = prompt_tokens(dict(row), self._processor, None, self._limits)
        return (
            of_text
            + sum(of_images)
            + max(len(turn_tokens(self._processor.tokenizer, row[name])) for name in ("chosen", "rejected"))
        )

    def _prompt(self, row: Mapping[str, Any]) -> "Mapping[str, Tensor]":
        text, images = rendered(
            dict(row),
            self._processor,
            None,
            self._limits.get("min_pixels"),
            self._limits.get("max_pixels"),
        )
        return self._processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
