"""Image features, stored once per group instead of once per response, and with pixel values as bytes.

Features (pixel values and their grid) are by far the largest part of a row in the transfer queue, and equal in all rows
of a group. They go into their own partition under the uid of the prompt, before the responses are generated, so no
agent loop worker holds them meanwhile. A row carries a `SharedFeatures` instead, which veRL's engine reads like the
dict that it expects. It fetches the features when it is first read and keeps them as bytes (`pixel_codes`): pixel
values exist for one micro-batch at a time. Features are removed with the last entry of their prompt, because the patch
`features_go_with_rows` calls `clear_unused`.
"""

from collections.abc import ItemsView, Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import torch
import transfer_queue as tq

from verl_ext.rollout.pixel_codes import expand, names_of

PARTITION = "shared_features"


class _Features(dict[str, torch.Tensor]):
    """A dict that can be referred to weakly."""


# The features that rows of this process hold now, so that the rows of a group fetch them once.
_held: WeakValueDictionary[str, _Features] = WeakValueDictionary()


class SharedFeatures:
    """The part of a dict of features that veRL reads; only the uid of the prompt is sent to another process.

    Args:
        local: features that need not be fetched.
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
        """Remove a local entry; the stored features belong to all rows."""
        return self._local.pop(name, default)


def _fetch(uid: str) -> _Features:
    row = tq.kv_batch_get(keys=[uid], partition_id=PARTITION)
    _held[uid] = features = _Features({name: row[name][0] for name in row.keys()})
    return features


async def store(uid: str, features: dict[str, torch.Tensor]) -> None:
    """Put the features of a prompt into the transfer queue."""
    await tq.async_kv_put(key=uid, partition_id=PARTITION, fields=features, tag={})


def clear_unused(removed: Iterable[str], partition_id: str) -> None:
    """Remove the features of prompts without any entry left in a partition.

    Args:
        removed: keys that were just removed from the partition: `{uid}` of a prompt, `{uid}_{session}_{index}` of a
            response.
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
