"""Patch `verl.utils.tensordict_utils.index_select_tensor_dict`: select a micro-batch without unbinding the batch.

For every micro-batch, veRL unbinds every nested column of the whole batch into one tensor per row, so the time grows
quadratically with the number of rows. This patch slices only the selected rows. Remove when veRL's function reads the
offsets.
"""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list


def patched(original: Callable[..., Any], batch: TensorDict | None, indices: torch.Tensor | list[int]) -> Any:
    """Select rows as veRL does, but slice nested columns by their offsets."""
    nested = {} if batch is None else {name: column for name, column in batch.items() if _has_offsets(column)}
    if batch is None or not nested:
        return original(batch, indices)
    selected = original(batch.exclude(*nested), indices)
    rows = torch.as_tensor(indices).tolist()
    for name, column in nested.items():
        ragged = getattr(column, "_ragged_idx", column.dim() - 1)
        offsets = column.offsets().tolist()
        slices = [column.values().narrow(ragged - 1, offsets[row], offsets[row + 1] - offsets[row]) for row in rows]
        selected[name] = nested_tensor_from_tensor_list(slices, ragged_idx=ragged)
    return selected


def _has_offsets(column: Any) -> bool:
    # A nested tensor with `lengths` has gaps between its rows.
    return isinstance(column, torch.Tensor) and column.layout == torch.jagged and column.lengths() is None
