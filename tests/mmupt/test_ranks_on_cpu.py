"""Ranks and rows of all kinds on the real stack: train on one FSDP2 rank, resume on two.

Batches mix rows with one image, with two, with options and with text alone, so that a rank may have a micro-batch
without images where the other has some. The reward is `self_certainty`, from the logits of each rank.
"""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_stack import scalars, train

from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.checkpoints import checkpoint_of
from verl_ext.checkpoints.reshard import reshard

pytestmark = pytest.mark.full_stack

OVERRIDES = (
    "method=self_certainty",
    # Half of the rows.
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "trainer.test_freq=2",
    # Both are compared at the end.
    "trainer.max_actor_ckpt_to_keep=2",
    # Both splits ask the same of text alone.
    "mmupt.leakage.allowed_pairs=null",
)
# Of each start, which trains one step.
RANKS = (1, 2)
QUESTION = "what is the sum of the three bars ?"


def rows(split: str) -> list[Row]:
    """Four rows of each kind."""
    first, *others = [encode_png(draw_figure(figure)) for figure in sample_figures(split, 9, 0)]  # type: ignore[arg-type]
    made = []
    for index in range(4):
        with_image = Row(f"{split}-image-{index}", "mixed", f"<image>{QUESTION}", (others[index],), "image", "9")
        two = replace(
            with_image,
            id=f"{split}-two-{index}",
            question=f"<image><image>{QUESTION}",
            images=(first, others[4 + index]),
        )
        options = replace(with_image, id=f"{split}-options-{index}", images=(others[4 + index],), choices=("9", "10"))
        # A question twice would be a duplicate.
        text = replace(with_image, id=f"{split}-text-{index}", question=" ".join([QUESTION] * (index + 1)), images=())
        made += [with_image, two, options, text]
    return made


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


def rollouts(run_folder: Path, step: int) -> list[dict]:
    return [json.loads(line) for line in (run_folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every step was trained by another start; `as_saved/N` is checkpoint N as it was then."""
    data, folder = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("run")
    write_dataset(data, {"train": rows("train"), "test": rows("test")}, {})
    files = (f"data.train_files={data / 'train.parquet'}", f"data.val_files={data / 'test.parquet'}")
    for step, ranks in enumerate(RANKS, start=1):
        options = (f"trainer.n_gpus_per_node={ranks}", f"trainer.total_training_steps={step}")
        train("mmupt_tiny", folder, *OVERRIDES, *files, *options)
        shutil.copytree(checkpoint_of(folder / "checkpoints", step) / "actor", folder / "as_saved" / str(step))
    return folder


def test_every_start_trains_the_next_step(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert [int(step) for step in re.findall(r"(?<!_)step:(\d+) - ", log)] == [1, 2]
    for step, ranks in enumerate(RANKS, start=1):
        assert len(list((run_folder / "as_saved" / str(step)).glob("model_*.pt"))) == ranks
        optimizer = torch.load(
            run_folder / "as_saved" / str(step) / f"optim_world_size_{ranks}_rank_0.pt", weights_only=False
        )
        assert {float(moments["step"]) for moments in optimizer["state"].values()} == {step}


def check_same_state(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_checkpoint_of_one_rank_holds_the_same_weights_and_moments_for_two(run_folder: Path) -> None:
    actor = checkpoint_of(run_folder / "checkpoints", 1) / "actor"
    assert len(list(actor.glob("model_*.pt"))) == 2
    check_same_state(state(run_folder / "as_saved" / "1"), state(actor))


def test_the_checkpoint_of_two_ranks_holds_the_same_weights_and_moments_for_one(
    run_folder: Path, tmp_path: Path
) -> None:
    saved = run_folder / "as_saved" / "2"
    actor = Path(shutil.copytree(saved, tmp_path / "actor"))
    reshard(actor, 1)
    assert len(list(actor.glob("model_*.pt"))) == 1
    check_same_state(state(saved), state(actor))


def test_every_rank_has_a_replica_of_vllm_and_all_see_the_trained_policy(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert len(set(re.findall(r"GroupServer pid=(\d+)", log))) == sum(RANKS)
    # A replica that was left out of a weight transfer would answer with weights drawn by chance.
    differences = scalars(run_folder)["training/rollout_probs_diff_mean"]
    assert set(differences) == {1, 2} and max(differences.values()) < 1e-4


def test_every_row_of_every_kind_is_trained_on_with_a_whole_group(run_folder: Path) -> None:
    for step in (1, 2):
        assert len(rollouts(run_folder, step)) == 8 * 4
    assert scalars(run_folder)["vote/failed_responses"] == {1: 0.0, 2: 0.0}


def test_every_response_is_rewarded_for_its_self_certainty(run_folder: Path) -> None:
    vocabulary = len(json.loads(Path("recipes/mmupt/tiny/model/tokenizer.json").read_text())["model"]["vocab"])
    for step in (1, 2):
        rewards = [row["score"] for row in rollouts(run_folder, step)]
        # logsumexp - mean is log V for a uniform distribution, and more for any other.
        assert min(rewards) > math.log(vocabulary) and len(set(rewards)) > 8


def test_validation_answers_every_row(run_folder: Path) -> None:
    assert len((run_folder / "validation" / "2.jsonl").read_text().splitlines()) == 16


def test_the_policy_of_two_ranks_is_exported(run_folder: Path) -> None:
    assert (run_folder / "model" / "global_step.txt").read_text() == "2"
