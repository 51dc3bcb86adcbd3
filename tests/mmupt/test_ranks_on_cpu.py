"""Training on one FSDP2 rank and resuming on two, on the full stack with rows of all kinds.

Batches mix rows with one image, with two images, with options and with text only, so a micro-batch of one rank can
have images while the other rank's has none. The reward is `self_certainty`, from the logits of each rank.
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
    # A batch has half of the rows.
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "trainer.test_freq=2",
    # The tests compare both checkpoints.
    "trainer.max_actor_ckpt_to_keep=2",
    # The text-only questions are the same in both splits.
    "mmupt.leakage.allowed_pairs=null",
)
# The number of ranks of each start, which trains one step.
RANKS = (1, 2)
QUESTION = "what is the sum of the three bars ?"


def rows(split: str) -> list[Row]:
    """Make four rows of each kind."""
    first, *others = [encode_png(draw_figure(figure)) for figure in sample_figures(split, 9, 0)]  # type: ignore[arg-type]
    mixed = []
    for index in range(4):
        with_image = Row(f"{split}-image-{index}", "mixed", f"<image>{QUESTION}", (others[index],), "image", "9")
        two = replace(
            with_image,
            id=f"{split}-two-{index}",
            question=f"<image><image>{QUESTION}",
            images=(first, others[4 + index]),
        )
        options = replace(with_image, id=f"{split}-options-{index}", images=(others[4 + index],), choices=("9", "10"))
        # Repetitions make the questions different; equal questions would be duplicates.
        text = replace(with_image, id=f"{split}-text-{index}", question=" ".join([QUESTION] * (index + 1)), images=())
        mixed += [with_image, two, options, text]
    return mixed


def state(actor: Path) -> dict[str, torch.Tensor]:
    """Return all parameters and moments of a checkpoint, concatenated from the shards of its ranks."""
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
    """A run whose two steps were trained by separate starts; `as_saved/N` is a copy of checkpoint N after its start."""
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


def assert_equal_states(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_resuming_on_two_ranks_reshards_the_checkpoint_of_one_rank_without_changes(run_folder: Path) -> None:
    actor = checkpoint_of(run_folder / "checkpoints", 1) / "actor"
    assert len(list(actor.glob("model_*.pt"))) == 2
    assert_equal_states(state(run_folder / "as_saved" / "1"), state(actor))


def test_the_checkpoint_of_two_ranks_is_resharded_for_one_rank_without_changes(
    run_folder: Path, tmp_path: Path
) -> None:
    saved = run_folder / "as_saved" / "2"
    actor = Path(shutil.copytree(saved, tmp_path / "actor"))
    reshard(actor, 1)
    assert len(list(actor.glob("model_*.pt"))) == 1
    assert_equal_states(state(saved), state(actor))


def test_every_rank_has_a_vllm_replica_with_the_weights_of_the_policy(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert len(set(re.findall(r"GroupServer pid=(\d+)", log))) == sum(RANKS)
    # A replica left out of a weight transfer would sample with random weights.
    differences = scalars(run_folder)["training/rollout_probs_diff_mean"]
    assert set(differences) == {1, 2} and max(differences.values()) < 1e-4


def test_every_step_trains_on_complete_groups_without_failed_responses(run_folder: Path) -> None:
    for step in (1, 2):
        assert len(rollouts(run_folder, step)) == 8 * 4
    assert scalars(run_folder)["vote/failed_responses"] == {1: 0.0, 2: 0.0}


def test_every_response_is_rewarded_with_its_self_certainty(run_folder: Path) -> None:
    vocabulary = len(json.loads(Path("recipes/mmupt/tiny/model/tokenizer.json").read_text())["model"]["vocab"])
    for step in (1, 2):
        rewards = [row["score"] for row in rollouts(run_folder, step)]
        # logsumexp - mean is log V for a uniform distribution and larger for any other distribution.
        assert min(rewards) > math.log(vocabulary) and len(set(rewards)) > 8


def test_validation_answers_every_row(run_folder: Path) -> None:
    assert len((run_folder / "validation" / "2.jsonl").read_text().splitlines()) == 16


def test_the_policy_of_the_last_step_is_exported(run_folder: Path) -> None:
    assert (run_folder / "model" / "global_step.txt").read_text() == "2"
