"""Every family through the whole stack: two steps of the trainer on rows with one image, two images and text alone."""

from pathlib import Path

import pytest
import torch
from full_stack import scalars, train
from tiny_families import FAMILIES, Family
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset

pytestmark = pytest.mark.full_stack

# tests/mmupt/test_full_stack_on_cpu.py and its neighbours run Qwen2.5-VL.
RUN = [family for family in FAMILIES.values() if family.name != "qwen2_5_vl"]


def rows(split: str, with_images: bool) -> list[Row]:
    """Four rows of each kind."""
    pictures = [encode_png(draw_figure(figure)) for figure in sample_figures(split, 12, 0)]  # type: ignore[arg-type]
    made = []
    for index in range(4):
        # A question twice would be a duplicate.
        question = " ".join(["what is the sum of the three bars ?"] * (index + 1))
        made.append(Row(f"{split}-text-{index}", "mixed", question, (), "free_form", "9"))
        if with_images:
            one, *two = pictures[3 * index : 3 * index + 3]
            made.append(Row(f"{split}-one-{index}", "mixed", f"<image>{question}", (one,), "free_form", "9"))
            made.append(Row(f"{split}-two-{index}", "mixed", f"<image><image>{question}", tuple(two), "free_form", "9"))
    return made


@pytest.fixture(scope="module", params=RUN, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the family, with its model in `base` and its run in `run`."""
    folder = tmp_path_factory.mktemp(family.name)
    family.build(folder / "base")
    # Nothing is validated, but veRL wants a file.
    write_dataset(folder, {split: rows(split, family.has_images) for split in ("train", "test")}, {})
    train(
        "mmupt_tiny",
        folder / "run",
        f"actor_rollout_ref.model.path={folder / 'base'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'test.parquet'}",
        # Both splits ask the same of text alone.
        "mmupt.leakage.allowed_pairs=null",
        f"data.train_batch_size={4 * (3 if family.has_images else 1)}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={4 * (3 if family.has_images else 1)}",
        "data.max_prompt_length=128",
        "data.max_response_length=16",
        "actor_rollout_ref.rollout.max_model_len=192",
        # The first update is so large that a policy that vLLM does not get in time has other probabilities.
        "actor_rollout_ref.actor.optim.lr=3e-3",
        # Log-probabilities of the actor before the update, which veRL compares with vLLM's.
        "algorithm.rollout_correction.bypass_mode=False",
        "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
    )
    return folder


def test_actor_and_vllm_agree_in_every_step(folder: Path) -> None:
    series = scalars(folder / "run")
    assert set(series["training/rollout_actor_probs_pearson_corr"]) == {1, 2}
    assert min(series["training/rollout_actor_probs_pearson_corr"].values()) >= 0.9999
    assert max(series["training/rollout_probs_diff_max"].values()) < 1e-3


def test_every_row_is_trained_on_by_the_vote_of_its_group(family: Family, folder: Path) -> None:
    series = scalars(folder / "run")
    for step in (1, 2):
        lines = (folder / "run" / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        assert len(lines) == 4 * 4 * (3 if family.has_images else 1)
    assert series["vote/failed_responses"] == {1: 0.0, 2: 0.0}
    # Some groups have a winner, whose gradient is no zero.
    assert series["vote/zero_advantage_rate"][1] < 1 and series["actor/grad_norm"][1] > 0


def test_the_exported_policy_loads_and_has_changed(family: Family, folder: Path) -> None:
    model_class = AutoModelForImageTextToText if family.has_images else AutoModelForCausalLM
    trained, info = model_class.from_pretrained(folder / "run" / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before = model_class.from_pretrained(folder / "base").state_dict()
    after = trained.state_dict()
    assert after.keys() == before.keys()
    towers = {"visual" in name for name in after if not torch.equal(after[name], before[name])}
    assert towers == ({True, False} if family.has_images else {False})
