"""Two FSDP2 ranks and two vLLM replicas on the real stack: train, resume on two, on one, and on two again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from verl_ext.checkpoints import checkpoint_of

pytestmark = pytest.mark.full_stack

OVERRIDES = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.save_freq=1",
    # All of them are compared at the end.
    "trainer.max_actor_ckpt_to_keep=4",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "mmupt.evaluation_files=null",
)
# Of each start, which trains one step.
RANKS = (2, 2, 1, 2)


def state(actor: Path) -> dict[str, torch.Tensor]:
    """All parameters and moments of a checkpoint, put together from the shards of its ranks."""
    ranks = json.loads((actor / "fsdp_config.json").read_text())["world_size"]

    def load(name: str, rank: int) -> dict:
        return torch.load(actor / f"{name}_world_size_{ranks}_rank_{rank}.pt", weights_only=False)

    models, optimizers = ([load(name, rank) for rank in range(ranks)] for name in ("model", "optim"))
    shards = {name: [model[name] for model in models] for name in models[0]}
    for index in optimizers[0]["state"]:
        for moment in ("exp_avg", "exp_avg_sq"):
            shards[f"{index}.{moment}"] = [optimizer["state"][index][moment] for optimizer in optimizers]
    return {name: torch.cat([shard.to_local() for shard in tensors]) for name, tensors in shards.items()}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every step was trained by another start; `as_saved/N` is checkpoint N as it was then."""
    folder = tmp_path_factory.mktemp("run")
    command = [
        sys.executable,
        "-m",
        "mmupt",
        "train",
        "mmupt_tiny",
        f"mmupt.run_folder={folder}",
        *OVERRIDES,
    ]
    for step, ranks in enumerate(RANKS, start=1):
        options = [f"trainer.n_gpus_per_node={ranks}", f"trainer.total_training_steps={step}"]
        subprocess.run([*command, *options], check=True, timeout=400)
        shutil.copytree(checkpoint_of(folder / "checkpoints", step) / "actor", folder / "as_saved" / str(step))
    return folder


def test_every_start_trains_the_next_step(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert [int(step) for step in re.findall(r"(?<!_)step:(\d+) - ", log)] == [1, 2, 3, 4]
    for step, ranks in enumerate(RANKS, start=1):
        assert len(list((run_folder / "as_saved" / str(step)).glob("model_*.pt"))) == ranks
        optimizer = torch.load(
            run_folder / "as_saved" / str(step) / f"optim_world_size_{ranks}_rank_0.pt", weights_only=False
        )
        assert {float(moments["step"]) for moments in optimizer["state"].values()} == {step}


@pytest.mark.parametrize(("step", "ranks"), [(2, 1), (3, 2)], ids=["two to one", "one to two"])
def test_a_checkpoint_for_other_ranks_holds_the_same_weights_and_moments(
    run_folder: Path, step: int, ranks: int
) -> None:
    actor = checkpoint_of(run_folder / "checkpoints", step) / "actor"
    assert len(list(actor.glob("model_*.pt"))) == ranks
    before, after = state(run_folder / "as_saved" / str(step)), state(actor)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_every_rank_has_a_replica_of_vllm_and_all_see_the_trained_policy(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert len(set(re.findall(r"vLLMHttpServer pid=(\d+)", log))) == sum(RANKS)
    for file in run_folder.glob("tensorboard/**/events.out.tfevents.*"):
        # A replica that was left out of a weight transfer would answer with weights drawn by chance.
        for event in EventAccumulator(str(file)).Reload().Scalars("actor/rollout_probs_diff_mean"):
            assert event.value < 1e-4


def test_the_policy_of_two_ranks_is_exported(run_folder: Path) -> None:
    assert (run_folder / "model" / "global_step.txt").read_text() == "4"
