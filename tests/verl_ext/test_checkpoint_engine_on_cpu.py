"""Weights reach every replica unchanged over gloo, with the calls of veRL's CheckpointEngineManager."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from verl.checkpoint_engine import CheckpointEngineRegistry

from verl_ext.cpu.checkpoint_engine import GlooCheckpointEngine

WEIGHTS = {
    "linear": torch.arange(12, dtype=torch.float32).view(3, 4),
    "transposed": torch.arange(12, dtype=torch.bfloat16).view(3, 4).T,
    "scalar": torch.tensor(7.5),
    "flags": torch.tensor([True, False]),
    "empty": torch.empty(0, 4),
    "a": torch.tensor([float("nan"), float("inf")]),
}


def engines(senders: int, receivers: int) -> list[GlooCheckpointEngine]:
    """Return the engines of the trainer's ranks, followed by those of the replicas' ranks."""
    return [
        CheckpointEngineRegistry.new("gloo", bucket_size=1, is_master=number == 0)
        for number in range(senders + receivers)
    ]


def transfer(ranks: list[GlooCheckpointEngine], senders: int) -> list[dict[str, torch.Tensor] | None]:
    """Send the weights, which every rank of the trainer has gathered. Returns what each replica received."""
    metadata = [engine.prepare() for engine in ranks]
    sending, receiving = GlooCheckpointEngine.build_topology(senders, len(ranks) - senders, metadata)
    arguments = [
        {name: values[position] for name, values in group.items()}
        for group, count in ((sending, senders), (receiving, len(ranks) - senders))
        for position in range(count)
    ]

    async def receive(engine: GlooCheckpointEngine) -> dict[str, torch.Tensor]:
        return {name: weight async for name, weight in engine.receive_weights(global_steps=3)}

    def work(position: int) -> dict[str, torch.Tensor] | None:
        engine = ranks[position]
        engine.init_process_group(**arguments[position])
        send = position < senders
        result = asyncio.run(engine.send_weights(iter(WEIGHTS.items()), global_steps=3) if send else receive(engine))
        engine.finalize()
        return result

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(work, range(len(ranks))))[senders:]


@pytest.mark.parametrize(("senders", "receivers"), [(1, 1), (2, 3)])
def test_every_replica_gets_identical_weights_in_every_transfer(senders: int, receivers: int) -> None:
    ranks = engines(senders, receivers)
    for received in transfer(ranks, senders) + transfer(ranks, senders):
        assert received is not None and list(received) == list(WEIGHTS)
        for name, weight in WEIGHTS.items():
            assert received[name].dtype == weight.dtype
            assert torch.equal(received[name].nan_to_num(), weight.nan_to_num())
