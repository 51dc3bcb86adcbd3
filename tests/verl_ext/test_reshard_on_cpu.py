"""Checkpoints are resharded to other numbers of ranks: real FSDP2 shards in veRL's format, over gloo."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard

from verl_ext.checkpoints.reshard import SETTINGS, reshard

# Start processes from a server that has imported torch.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch.distributed.fsdp"])


def train(rank: int, ranks: int, folder: Path, resume: bool, steps: int) -> None:
    """Train as one rank, on the same batch as all ranks; load and save like veRL."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous_{ranks}_{resume}", rank=rank, world_size=ranks
    )
    torch.manual_seed(0)
    # 7 and 5 rows do not divide evenly, and a single row leaves some ranks without any.
    model = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Tanh(), torch.nn.Linear(7, 5), torch.nn.Linear(5, 1))
    model.register_buffer("buffer", torch.ones(2))
    for module in (*model, model):
        fully_shard(module, mesh=init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    if resume:
        model.load_state_dict(load(folder, "model", ranks, rank))
        optimizer.load_state_dict(load(folder, "optim", ranks, rank))
    for _ in range(steps):
        model(torch.linspace(-1, 1, 12).reshape(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(model.state_dict(), folder / f"model_world_size_{ranks}_rank_{rank}.pt")
    torch.save(optimizer.state_dict(), folder / f"optim_world_size_{ranks}_rank_{rank}.pt")
    torch.save({"rng": rank}, folder / f"extra_state_world_size_{ranks}_rank_{rank}.pt")
    (folder / SETTINGS).write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    torch.distributed.destroy_process_group()


def load(folder: Path, name: str, ranks: int, rank: int) -> Any:
    return torch.load(folder / f"{name}_world_size_{ranks}_rank_{rank}.pt", weights_only=False)


def run(folder: Path, ranks: int, resume: bool, steps: int) -> None:
    folder.mkdir(exist_ok=True)
    processes = [PROCESSES.Process(target=train, args=(rank, ranks, folder, resume, steps)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def assembled(folder: Path, ranks: int) -> dict[str, torch.Tensor]:
    """Assemble all parameters, buffers and moments from the shards."""
    models, optimizers = ([load(folder, name, ranks, rank) for rank in range(ranks)] for name in ("model", "optim"))
    tensors = {name: [model[name] for model in models] for name in models[0]}
    for index, state in optimizers[0]["state"].items():
        tensors |= {f"{index}.{name}": [optimizer["state"][index][name] for optimizer in optimizers] for name in state}
    return {
        name: torch.cat([shard._local_tensor for shard in shards]) if hasattr(shards[0], "placements") else shards[0]
        for name, shards in tensors.items()
    }


@pytest.fixture(scope="module")
def two_rank_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    folder = tmp_path_factory.mktemp("two")
    run(folder, ranks=2, resume=False, steps=1)

    def copy(target: Path) -> Path:
        target.mkdir()
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    return copy


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_weights_and_moments_survive_resharding_there_and_back(
    two_rank_checkpoint: Callable[[Path], Path], tmp_path: Path, ranks: int
) -> None:
    actor = two_rank_checkpoint(tmp_path / "actor")
    before = assembled(actor, 2)
    assert {"0.weight", "buffer", "0.exp_avg", "0.exp_avg_sq", "0.step"} <= before.keys()
    for count in (ranks, 2):
        reshard(actor, count)
        after = assembled(actor, count)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert json.loads((actor / SETTINGS).read_text()) == {"FSDP_version": 2, "world_size": count}
        assert len(list(actor.glob("*.pt"))) == 3 * count, "shards of another number of ranks are left"


def test_every_rank_gets_the_rows_that_fsdp_would_give_it(
    two_rank_checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    actor = two_rank_checkpoint(tmp_path / "actor")
    full = assembled(actor, 2)["0.weight"]
    reshard(actor, 3)
    for rank, rows in enumerate(full.chunk(3)):
        shard = load(actor, "model", 3, rank)["0.weight"]
        assert torch.equal(shard._local_tensor, rows) and shard.shape == full.shape
        assert load(actor, "extra_state", 3, rank) == {"rng": rank % 2}


def test_changing_the_number_of_ranks_does_not_change_training(tmp_path: Path) -> None:
    run(tmp_path / "changing", 2, resume=False, steps=1)
    for ranks in (1, 3):
        reshard(tmp_path / "changing", ranks)
        run(tmp_path / "changing", ranks, resume=True, steps=1)
    run(tmp_path / "steady", 1, resume=False, steps=3)
    changing, steady = assembled(tmp_path / "changing", 3), assembled(tmp_path / "steady", 1)
    assert changing["0.step"] == steady["0.step"] == 3
    for name in steady:
        torch.testing.assert_close(changing[name], steady[name])


def test_a_kill_while_resharding_leaves_the_checkpoint_unchanged(
    two_rank_checkpoint: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = two_rank_checkpoint(tmp_path / "actor")
    before = assembled(actor, 2)

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("verl_ext.checkpoints.reshard.shutil.copyfile", kill)
        reshard(actor, 1)
    reshard(actor, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in assembled(actor, 2).items())
    reshard(actor, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in assembled(actor, 1).items())


def test_an_unsharded_tensor_that_differs_between_ranks_is_refused(
    two_rank_checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    actor = two_rank_checkpoint(tmp_path / "actor")
    state = load(actor, "model", 2, 1)
    state["buffer"] += 1
    torch.save(state, actor / "model_world_size_2_rank_1.pt")
    with pytest.raises(ValueError, match="differs between the ranks: resume on as many ranks as before"):
        reshard(actor, 1)


def test_tensors_sharded_over_only_some_ranks_are_refused(
    two_rank_checkpoint: Callable[[Path], Path], tmp_path: Path
) -> None:
    actor = two_rank_checkpoint(tmp_path / "actor")
    mesh = DeviceMesh(
        "cpu", torch.arange(2).reshape(1, 2), mesh_dim_names=("ddp", "fsdp"), _init_backend=False, _rank=0
    )
    state = load(actor, "model", 2, 0)
    state["0.weight"] = DTensor.from_local(state["0.weight"].to_local(), mesh, (Replicate(), Shard(0)))
    torch.save(state, actor / "model_world_size_2_rank_0.pt")
    with pytest.raises(ValueError, match=r"placed as .*Replicate.*: resume on as many ranks as before"):
        reshard(actor, 1)
