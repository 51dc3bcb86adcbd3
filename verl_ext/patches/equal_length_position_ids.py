"""Patch `verl.utils.tensordict_utils.maybe_fix_3d_position_ids`: sequences of equal length keep their position ids.

Position ids of a vision-language model are (4, length) per sequence, batched as a nested tensor whose last dimension is
ragged. If all lengths of a batch are equal, torch cannot tell which dimension is ragged and assumes the first; veRL
then relabels the tensor without rebuilding it. On any device. Remove when veRL names the ragged dimension when it
builds the tensor.
"""

from collections.abc import Callable
from typing import Any

import torch


def _is_ragged_over_rows(position_ids: torch.Tensor) -> bool:
    if not position_ids.is_nested or position_ids.dim() != 3:
        return False
    rows = position_ids.offsets().diff()
    return int(position_ids.offsets()[-1]) == position_ids.values().shape[0] and bool((rows == rows[0]).all())


def patched(original: Callable[..., None], data: Any) -> None:
    """Rebuild position ids that are ragged over the wrong dimension."""
    position_ids = data["position_ids"] if "position_ids" in data.keys() else None
    if position_ids is None or not _is_ragged_over_rows(position_ids):
        original(data)
        return
    sequences = position_ids.values().split(int(position_ids.offsets()[1]))
    length = sequences[0].shape[1]
    data["position_ids"] = torch.nested.nested_tensor_from_jagged(
        torch.cat(sequences, dim=1),
        offsets=torch.arange(0, length * len(sequences) + 1, length, device=position_ids.device),
        jagged_dim=2,
    )
