"""Rewrites a checkpoint for a different number of ranks, to resume a run on more or fewer GPUs. Imports no veRL.

veRL's FSDP2 actor saves one file per rank and loads them only on the same number of ranks. This module splits every
parameter and optimizer moment again, bit-exactly and like FSDP2: by `torch.chunk` along the sharded dimension. It needs
no GPU, no process group, and no more memory than the shards of one rank.
"""

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from verl_ext.files import write_json

# Written by veRL beside the shards; its `world_size` determines which shards belong to the checkpoint.
SETTINGS = "fsdp_config.json"


def reshard(actor: Path, ranks: int) -> None:
    """Reshard the checkpoint of an FSDP2 actor for `ranks` ranks and print a line, unless it has that many.

    A kill leaves the checkpoint unchanged. Each rank gets the random state and learning rate schedule of the old rank
    `rank % (old number of ranks)`.

    Args:
        actor: veRL's folder `global_step_N/actor`.

    Raises:
        ValueError: a tensor is not sharded by FSDP2 over all ranks.
    """
    settings = json.loads((actor / SETTINGS).read_text())
    before = settings["world_size"]
    if before == ranks:
        return
    for name in ("model", "optim"):
        if not _shard(actor, name, before, 0).is_file():
            continue
        # Memory-mapped, because each target rank needs only a part of each file.
        shards = [
            torch.load(_shard(actor, name, before, rank), map_location="cpu", weights_only=False, mmap=True)
            for rank in range(before)
        ]
        for rank in range(ranks):
            torch.save(_of_rank(shards, rank, ranks), _shard(actor, name, ranks, rank))
    for rank in range(ranks):
        if (extra := _shard(actor, "extra_state", before, rank % before)).is_file():
            shutil.copyfile(extra, _shard(actor, "extra_state", ranks, rank))
    os.sync()
    write_json(actor / SETTINGS, {**settings, "world_size": ranks})
    for file in actor.glob(f"*_world_size_{before}_rank_*.pt"):
        file.unlink()
    print(f"{actor}: resharded from {before} to {ranks} ranks")


def _shard(actor: Path, name: str, ranks: int, rank: int) -> Path:
    return actor / f"{name}_world_size_{ranks}_rank_{rank}.pt"


def _of_rank(shards: list[Any], rank: int, ranks: int) -> Any:
    """Build the state of one of `ranks` ranks from the states of all old ranks, nested dicts with the same keys."""
    first = shards[0]
    if isinstance(first, DTensor):
        return _cut(shards, rank, ranks)
    if isinstance(first, dict):
        # `copy.copy` also preserves the attributes of a model's state dict.
        state = copy.copy(first)
        for key in first:
            state[key] = _of_rank([shard[key] for shard in shards], rank, ranks)
        return state
    if isinstance(first, torch.Tensor) and not all(torch.equal(first, other) for other in shards):
        raise ValueError("a tensor that is not sharded differs between the ranks: resume on as many ranks as before")
    return first


def _cut(shards: list[DTensor], rank: int, ranks: int) -> DTensor:
    mesh, placements = shards[0].device_mesh, shards[0].placements
    if mesh.ndim != 1 or mesh.size() != len(shards) or not isinstance(placements[0], Shard):
        raise ValueError(f"a tensor is placed as {placements} over {mesh}: resume on as many ranks as before")
    dimension = placements[0].dim
    length = shards[0].shape[dimension]
    chunk = -(-length // ranks)
    start, end = min(rank * chunk, length), min((rank + 1) * chunk, length)
    pieces, offset = [], 0
    for shard in shards:
        local = shard._local_tensor
        first, last = (min(max(edge - offset, 0), local.shape[dimension]) for edge in (start, end))
        pieces.append(local.narrow(dimension, first, last - first))
        offset += local.shape[dimension]
    new_mesh = DeviceMesh(
        mesh.device_type, torch.arange(ranks), mesh_dim_names=mesh.mesh_dim_names, _init_backend=False, _rank=rank
    )
    return DTensor(
        torch.cat(pieces, dimension),
        replace(shards[0]._spec, mesh=new_mesh),
        requires_grad=shards[0].requires_grad,
    )
