"""Patch `verl.workers.engine.utils.rearrange_micro_batches`: without packing, the token limit includes padding.

Without flash-attn veRL pads every sequence of a micro-batch to the longest sequence, but counts only unpadded tokens
when it fills micro-batches: one sequence of 4,096 tokens and ten of 400 stay below 8,192 but take 45,056 when padded.
Here micro-batches are filled by length and stay within the limit with padding. Grouping sequences differently does not
change results. Remove when veRL counts padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.utils.device import get_device_name


def patched(original: Callable[..., Any], batch: TensorDict, max_token_len: int, **options: Any) -> Any:
    """Split a batch as the original does, but by padded size if sequences are padded.

    Raises:
        ValueError: a sequence is longer than `max_token_len`, or another rank needs more micro-batches than this rank
            has sequences.
    """
    is_packed = tensordict_utils.get_non_tensor_data(data=batch, key="use_remove_padding", default=True)
    # Only other engines and reward models set these options.
    others = ("num_batches_divided_by", "min_num_micro_batch")
    if is_packed or options.get("force_group_size", 1) > 1 or any(options.get(name) is not None for name in others):
        return original(batch, max_token_len, **options)
    lengths = batch["input_ids"].offsets().diff().tolist()
    groups = partition(lengths, max_token_len, lambda count: _largest(count, options.get("dp_group")))
    return [tensordict_utils.index_select_tensor_dict(batch, group) for group in groups], groups


def partition(lengths: Sequence[int], limit: int, agree: Callable[[int], int] = int) -> list[list[int]]:
    """Group sequences, by index, into groups of at most `limit` tokens when padded to their longest sequence.

    Args:
        lengths: tokens of each sequence.
        agree: maps the number of groups that this rank needs to the number that all ranks use, at least as large.
    """
    if max(lengths) > limit:
        raise ValueError(f"a sequence of {max(lengths)} tokens is longer than a micro-batch, {limit}")
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    count = agree(len(groups))
    if count > len(lengths):
        raise ValueError(f"another rank needs {count} micro-batches, and this one has {len(lengths)} sequences")
    while len(groups) < count:
        largest = max((group for group in groups if len(group) > 1), key=lambda group: lengths[group[0]] * len(group))
        half = len(largest) // 2
        groups[groups.index(largest)] = largest[:half]
        groups.append(largest[half:])
    return groups


def _largest(count: int, group: Any) -> int:
    """Return the maximum of a number over the ranks of a process group."""
    if group is None or not torch.distributed.is_initialized():
        return count
    largest = torch.tensor([count], device=get_device_name())
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX, group=group)
    return int(largest.item())
