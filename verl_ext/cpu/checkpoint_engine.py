"""A checkpoint engine for the CPU: sends the trainer's weights to standalone rollout replicas over gloo.

veRL's own engines need a GPU or RDMA. `rollout.checkpoint_engine.backend=gloo` selects this engine, which veRL imports
by `rollout.checkpoint_engine.custom_backend_module`. The trainer's first rank broadcasts one tensor at a time to all
ranks of the replicas, and describes the next tensor in a store beside their process group.
"""

import pickle
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import ray
import torch
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

TIMEOUT = timedelta(minutes=10)
# Marks the trainer's other ranks, which only help to gather the weights.
NO_RANK = -1


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """veRL's `CheckpointEngine` documents the methods. Store and group live for one transfer.

    Args:
        bucket_size: ignored, because tensors are sent one by one.
        is_master: whether this is the first rank of the trainer.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self._is_master = is_master
        self._store: TCPStore | None = None
        self._group: ProcessGroupGloo | None = None

    def prepare(self) -> tuple[str, int] | None:
        """Return the address of the master's store; None on all other ranks."""
        if not self._is_master:
            return None
        host = ray.util.get_node_ip_address().strip("[]")
        # Port 0 takes any free port.
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        return host, self._store.port

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[tuple[str, int] | None]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Give the master rank 0 and the replicas the following ranks."""
        size = 1 + rollout_world_size

        def arguments(ranks: list[int]) -> dict[str, list[Any]]:
            return {"rank": ranks, "size": [size] * len(ranks), "address": [metadata[0]] * len(ranks)}

        return arguments([0, *[NO_RANK] * (actor_wg_world_size - 1)]), arguments(list(range(1, size)))

    def init_process_group(self, rank: int, size: int, address: tuple[str, int]) -> None:
        """Join the group; returns when all ranks have joined."""
        if rank == NO_RANK:
            return
        self._store = self._store or TCPStore(*address, is_master=False, timeout=TIMEOUT)
        self._group = ProcessGroupGloo(self._store, rank, size, TIMEOUT)

    def finalize(self) -> None:
        """Leave the group."""
        self._group = self._store = None

    async def send_weights(self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None) -> None:
        """Send all weights; a rank without a group only iterates, which takes part in gathering them."""
        position = 0
        for name, weight in weights:
            if self._store is not None and self._group is not None:
                self._store.set(str(position), pickle.dumps((name, weight.shape, weight.dtype)))
                self._group.broadcast(_bytes(weight.detach().contiguous()), root=0).wait()
            position += 1
        if self._store is not None:
            self._store.set(str(position), pickle.dumps(None))

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Yield the weights that the master sends."""
        assert self._store is not None and self._group is not None
        position = 0
        while (described := pickle.loads(self._store.get(str(position)))) is not None:
            name, shape, dtype = described
            weight = torch.empty(shape, dtype=dtype)
            self._group.broadcast(_bytes(weight), root=0).wait()
            yield name, weight
            position += 1


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor, because gloo cannot send every dtype."""
    return tensor.view(-1).view(torch.uint8)
