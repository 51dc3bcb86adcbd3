"""The features of a prompt's images, stored once a group instead of once a response.

Features (pixel values and their grid) are by far the largest part of a row in the transfer queue, and the same in all
rows of a group. They are put under the uid of the prompt into a partition of their own. A row carries a
`SharedFeatures` in their place, which veRL's engine reads like the dict that it expects, and which fetches them when it
is first read. They are removed together with the last entry of their prompt, whoever removes that: the patch
`features_go_with_rows` calls `clear_unused`.
"""

from collections.abc import ItemsView, Iterable
from typing import Any
from weakref import WeakValueDictionary

import torch
import transfer_queue as tq

PARTITION = "shared_features"


class _Features(dict[str, torch.Tensor]):
    """A dict that can be referred to weakly."""


# The features that some row of this process holds at the moment, so that the rows of a group fetch them once.
_held: WeakValueDictionary[str, _Features] = WeakValueDictionary()


class SharedFeatures:
    """A dict of features as far as veRL reads one; of itself only the uid of the prompt is sent to another process."""

    def __init__(self, uid: str, features: dict[str, torch.Tensor] | None = None) -> None:
        self.uid = uid
        self._features = None if features is None else _Features(features)

    def __reduce__(self) -> tuple[type["SharedFeatures"], tuple[str]]:
        return SharedFeatures, (self.uid,)

    def _loaded(self) -> _Features:
        if self._features is None:
            self._features = _held.get(self.uid) or _fetch(self.uid)
        return self._features

    def __contains__(self, name: str) -> bool:
        return name in self._loaded()

    def get(self, name: str, default: Any = None) -> Any:
        return self._loaded().get(name, default)

    def items(self) -> ItemsView[str, torch.Tensor]:
        return self._loaded().items()

    def pop(self, name: str, default: Any = None) -> Any:
        """Take an entry out of this dict alone, not out of those of the other rows."""
        self._features = _Features(self._loaded())
        return self._features.pop(name, default)


def _fetch(uid: str) -> _Features:
    row = tq.kv_batch_get(keys=[uid], partition_id=PARTITION)
    _held[uid] = features = _Features({name: row[name][0] for name in row.keys()})
    return features


def without_images(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of a prompt with the places of its images, but not the images."""
    return [
        message
        if isinstance(message["content"], str)
        else {
            **message,
            "content": [{"type": "image"} if part["type"] == "image" else part for part in message["content"]],
        }
        for message in messages
    ]


async def store(uid: str, features: dict[str, torch.Tensor]) -> None:
    """Put the features of a prompt into the transfer queue."""
    await tq.async_kv_put(key=uid, partition_id=PARTITION, fields=features, tag={})


def clear_unused(removed: Iterable[str], partition_id: str) -> None:
    """Remove the features of prompts of which a partition holds nothing any more.

    Args:
        removed: keys that have just been removed from the partition, `{uid}` of a prompt or `{uid}_{session}_{index}`
            of a response.
        partition_id: the partition.
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
