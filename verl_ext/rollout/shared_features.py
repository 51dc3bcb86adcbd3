"""Stores image features once per group instead of once per response, with pixel values as bytes.

Features (pixel values and their grid) are by far the largest part of a row in the transfer queue and are equal in all
rows of a group. They go into a separate partition under the uid of the prompt before the responses are generated, so
agent loop workers do not hold them during generation. Each row contains a `SharedFeatures` instead, which veRL's engine
reads like a dict. It fetches the features at the first read and keeps them as bytes (`pixel_codes`), so pixel values
exist for only one micro-batch at a time. The patch `features_go_with_rows` calls `clear_unused` to remove the features
of a prompt with its last entry.
"""

from collections.abc import ItemsView, Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import torch
import transfer_queue as tq

from verl_ext.rollout.pixel_codes import expand, names_of

PARTITION = "shared_features"


class _Features(dict[str, torch.Tensor]):
    """A dict that supports weak references."""


# Features that rows in this process hold, so that the rows of a group fetch them once.
_held: WeakValueDictionary[str, _Features] = WeakValueDictionary()


class SharedFeatures:
    """Implements the dict methods that veRL calls on features; when pickled, only the uid of the prompt is sent.

    Args:
        local: features that are available without fetching.
    """

    def __init__(self, uid: str, local: Mapping[str, torch.Tensor] | None = None) -> None:
        self.uid = uid
        self._local = dict(local or {})
        self._stored: _Features | None = None

    def __reduce__(self) -> tuple[type["SharedFeatures"], tuple[str]]:
        return SharedFeatures, (self.uid,)

    def _compact(self) -> _Features:
        if self._stored is None:
            self._stored = _held.get(self.uid) or _fetch(self.uid)
        return self._stored

    def __contains__(self, name: str) -> bool:
        return name in self._local or name in names_of(self._compact())

    def get(self, name: str, default: Any = None) -> Any:
        return self._local[name] if name in self._local else expand(self._compact()).get(name, default)

    def items(self) -> ItemsView[str, torch.Tensor]:
        return expand(self._compact()).items()

    def pop(self, name: str, default: Any = None) -> Any:
        """Remove a local entry; stored features stay, because all rows share them."""
        return self._local.pop(name, default)


def _fetch(uid: str) -> _Features:
    row = tq.kv_batch_get(keys=[uid], partition_id=PARTITION)
    _held[uid] = features = _Features({name: row[name][0] for name in row.keys()})
    return features


async def store(uid: str, features: dict[str, torch.Tensor]) -> None:
    """Put the features of a prompt into the transfer queue."""
    await tq.async_kv_put(key=uid, partition_id=PARTITION, fields=features, tag={})


def clear_unused(removed: Iterable[str], partition_id: str) -> None:
    """Remove the features of prompts that have no entry left in a partition.

    Args:
        removed: keys just removed from the partition, `{uid}` of a prompt or `{uid}_{session}_{index}` of a response.
    """
    if partition_id == PARTITION:
        return
    candidates = _keys(PARTITION) & _uids(removed)
    if candidates and (unused := candidates - _uids(_keys(partition_id))):
        tq.kv_clear(keys=sorted(unused), partition_id=PARTITION)


def _keys(partition_id: str) -> set[str]:
    return set((tq.kv_list(partition_id) or {}).get(partition_id, {}))


def _uids(keys: Iterable[str]) -> set[str]:
    return {key.split("_")[0] for key in keys}
