"""Preference pairs for DPO: checks a file of pairs and collates batches; `training_sets` defines its columns."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mmupt.baselines.prompt_rows import placeholder_problem
from mmupt.baselines.training_sets import PAIRS, read_set
from mmupt.evaluation.messages import prompt_tokens, rendered
from mmupt_data.row_problems import image_problems
from verl_ext.datasets.response_tokens import turn_tokens

if TYPE_CHECKING:
    from torch import Tensor


def check_pairs(file: Path, alike: bool) -> None:
    """Check every row of a set of pairs before anything expensive starts.

    With `alike`, either all rows or no row may have images.

    Raises:
        ValueError: a column is missing, the set is empty, or a row cannot be used; the message names file, row and id.
    """
    first = None
    for number, row in enumerate(read_set(file, PAIRS)):
        first = first or row
        if problem := _problem(row):
            raise ValueError(f"{file}, row {number}, id {row['id']}: {problem}")
        if alike and bool(row["images"]) != bool(first["images"]):
            raise ValueError(
                f"{file}, row {number}, id {row['id']}: some rows have images and some have none, which would make "
                "processes wait for each other's vision tower: train with one process, or on rows of one kind"
            )
    if first is None:
        raise ValueError(f"{file} has no pairs: loosen the rule that selects them, or sample more responses")


def _problem(row: Mapping[str, Any]) -> str | None:
    for name in ("chosen", "rejected"):
        if row[name] is None:
            return f"{name} is null: a pair needs two responses"
    if row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same response, which teaches nothing: leave the pair out"
    if problem := placeholder_problem(row):
        return problem
    images = row["images"] or []
    problems = (image_problems(image["bytes"], f"image {index}") for index, image in enumerate(images))
    first = next(chain.from_iterable(problems), None)
    return f"{first.kind} ({first.detail})" if first else None


class PairCollator:
    """Collates pairs into the tensors of a batch; a `data_collator` for TRL's `DPOTrainer`.

    Prompts are those of the rollout, see `mmupt.evaluation.messages`. The loss covers the responses and their
    end-of-turn tokens. A special token spelled out in a response is tokenized as plain text.

    Args:
        processor: the processor of Qwen2-VL or a successor.
        limits: `min_pixels` and `max_pixels` of the rollout, those that are set.
    """

    def __init__(self, processor: Any, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        self._processor, self._limits = processor, limits

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> "dict[str, Tensor]":
        """Collate `n` pairs into `2 * n` sequences padded to the longest, all chosen responses first.

        Returns:
            input_ids, attention_mask, completion_mask, mm_token_type_ids: int64 (2 * n, length).
            pixel_values, image_grid_thw: the images of all sequences, as the processor returns them; absent without
                images.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        prompts = [self._prompt(row) for row in rows]
        sequences: dict[str, list[Tensor]] = {
            name: [] for name in ("input_ids", "completion_mask", "mm_token_type_ids")
        }
        for name in ("chosen", "rejected"):
            for row, prompt in zip(rows, prompts, strict=True):
                prompt_ids = prompt["input_ids"][0]
                response_ids = torch.tensor(turn_tokens(self._processor.tokenizer, row[name]))
                sequences["input_ids"].append(torch.cat([prompt_ids, response_ids]))
                sequences["completion_mask"].append(
                    torch.cat([torch.zeros_like(prompt_ids), torch.ones_like(response_ids)])
                )
                kinds = prompt["mm_token_type_ids"][0]
                sequences["mm_token_type_ids"].append(torch.cat([kinds, kinds.new_zeros(len(response_ids))]))
        sequences["attention_mask"] = [torch.ones_like(ids) for ids in sequences["input_ids"]]
        # Padding is on the right and masked, so its token id does not matter.
        batch = {name: pad_sequence(tensors, batch_first=True) for name, tensors in sequences.items()}
        for name in ("pixel_values", "image_grid_thw"):
            if tensors := [prompt[name] for prompt in prompts if name in prompt]:
                batch[name] = torch.cat(tensors * 2)
        return batch

    def length(self, row: Mapping[str, Any]) -> int:
        """Count the tokens of the longer sequence of a pair without decoding images."""
        text_tokens, image_tokens = prompt_tokens(dict(row), self._processor, None, self._limits)
        return (
            text_tokens
            + sum(image_tokens)
            + max(len(turn_tokens(self._processor.tokenizer, row[name])) for name in ("chosen", "rejected"))
        )

    def _prompt(self, row: Mapping[str, Any]) -> "Mapping[str, Tensor]":
        text, images = rendered(dict(row), self._processor, self._limits)
        return self._processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
