"""Patch `verl.utils.tensordict_utils.index_select_tensor_dict`: a micro-batch is cut out without unbinding the batch.

veRL unbinds every nested column of a batch, a tensor per row, for every micro-batch, so that the time grows with the
square of the rows. Here only the selected rows are cut out. Remove when veRL's function reads the offsets.
"""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list


def patched(original: Callable[..., Any], batch: TensorDict | None, indices: torch.Tensor | list[int]) -> Any:
    """Select rows as veRL does, from nested columns by their offsets."""
    nested = {} if batch is None else {name: column for name, column in batch.items() if _has_offsets(column)}
    if batch is None or not nested:
        return original(batch, indices)
    selected = original(batch.exclude(*nested), indices)
    rows = torch.as_tensor(indices).tolist()
    for name, column in nested.items():
        ragged = getattr(column, "_ragged_idx", column.dim() - 1)
        offsets = column.offsets().tolist()
        parts = [column.values().narrow(ragged - 1, offsets[row], offsets[row + 1] - offsets[row]) for row in rows]
        selected[name] = nested_tensor_from_tensor_list(parts, ragged_idx=ragged)
    return selected


def _has_offsets(column: Any) -> bool:
    # With `lengths`, a nested tensor has holes between its rows.
    return isinstance(column, torch.Tensor) and column.layout == torch.jagged and column.lengths() is None
