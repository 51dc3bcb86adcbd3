"""Every family in the whole stack: two training steps on rows with one image, two images and text only.

Qwen3, which has no images, runs the recipe for text only, from the hub's data sets to the report.
"""

import json
from pathlib import Path

import pytest
import torch
from family_table import documented_cells
from full_stack import scalars, train
from hub_shaped import TEXT_SHAPES, write_split
from tiny_families import FAMILIES, Family
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from mmupt.datasets import data_set
from mmupt.evaluation.response_files import read_whole
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.prepare import FOLDER
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset

# The only run of the real trainer in `make test`.
IN_EVERY_TEST_RUN = ("qwen3_vl",)
# tests/mmupt/test_full_stack_on_cpu.py and other tests of that folder run Qwen2.5-VL.
RUN = [
    pytest.param(family, id=name, marks=() if name in IN_EVERY_TEST_RUN else pytest.mark.full_stack)
    for name, family in FAMILIES.items()
    if name != "qwen2_5_vl"
]
# Questions per data set for text-only training.
QUESTIONS = 12


def rows(split: str) -> list[Row]:
    """Two rows of each kind: without image, with one and with two images."""
    pictures = [encode_png(draw_figure(figure)) for figure in sample_figures(split, 6, 0)]  # type: ignore[arg-type]
    rows = []
    for index in range(2):
        # Questions differ, because duplicates are refused.
        question = " ".join(["what is the sum of the three bars ?"] * (index + 1))
        rows.append(Row(f"{split}-text-{index}", "mixed", question, (), "free_form", "9"))
        one, *two = pictures[3 * index : 3 * index + 3]
        rows.append(Row(f"{split}-one-{index}", "mixed", f"<image>{question}", (one,), "free_form", "9"))
        rows.append(Row(f"{split}-two-{index}", "mixed", f"<image><image>{question}", tuple(two), "free_form", "9"))
    return rows


# The first update is large, so that vLLM's probabilities would differ if it missed the new weights.
LARGE_UPDATES = ("actor_rollout_ref.actor.optim.lr=3e-3", "data.max_response_length=16")


def train_on_images(folder: Path) -> None:
    # veRL requires a validation file, though nothing is validated.
    write_dataset(folder, {split: rows(split) for split in ("train", "test")}, {})
    train(
        "mmupt_tiny",
        folder / "run",
        f"actor_rollout_ref.model.path={folder / 'base'}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'test.parquet'}",
        # Both splits have the same questions without images.
        "mmupt.leakage.allowed_pairs=null",
        "data.train_batch_size=6",
        "actor_rollout_ref.actor.ppo_mini_batch_size=6",
        "data.max_prompt_length=128",
        "actor_rollout_ref.rollout.max_model_len=192",
        # The actor computes old log-probabilities, which veRL compares with vLLM's.
        "algorithm.rollout_correction.bypass_mode=False",
        "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
        # vLLM and the actor disagree if images of two workers are mixed up.
        "actor_rollout_ref.rollout.agent.num_workers=2",
        *LARGE_UPDATES,
    )


def train_on_text(folder: Path) -> None:
    for name in ("aime2024", "amc"):
        record, split = TEXT_SHAPES[name]
        write_split(folder / "hub" / name, split, [record(index) for index in range(QUESTIONS)], {})
        data_set(name).prepare(folder / FOLDER / name, str(folder / "hub" / name))
    train(
        "mmupt_aime2024",
        folder / "run",
        "hardware=cpu",
        f"actor_rollout_ref.model.path={folder / 'base'}",
        # More votes than trained responses, as in the recipe.
        "reward.reward_kwargs.vote.vote_n=8",
        "mmupt.evaluation_files=datasets/aime2024/test.parquet",
        "mmupt.evaluation_samples=2",
        "trainer.test_freq=2",
        *LARGE_UPDATES,
        cwd=folder,
    )


@pytest.fixture(scope="module", params=RUN)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the family's model in `base` and a finished run in `run`."""
    folder = tmp_path_factory.mktemp(family.name)
    family.build(folder / "base")
    (train_on_images if family.has_images else train_on_text)(folder)
    return folder


def test_actor_and_vllm_agree_in_every_step(family: Family, folder: Path) -> None:
    series = scalars(folder / "run")
    assert set(series["training/rollout_actor_probs_pearson_corr"]) == {1, 2}
    assert min(series["training/rollout_actor_probs_pearson_corr"].values()) >= 0.9999
    assert max(series["training/rollout_probs_diff_mean"].values()) < 1e-3
    # Rounding decides which of two experts with nearly equal router logits computes a token. Without experts, a
    # token of Qwen3.5 once differed by 1.6e-3, at a mean of 3e-5.
    if not family.has_experts:
        assert max(series["training/rollout_probs_diff_max"].values()) < 1e-2
    assert documented_cells()[family.name]["correlation"] == ">= 0.9999"


def test_every_row_is_trained_on_with_the_vote_of_its_group(family: Family, folder: Path) -> None:
    series = scalars(folder / "run")
    for step in (1, 2):
        lines = (folder / "run" / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        assert len(lines) == 4 * (6 if family.has_images else 4)
    assert series["vote/failed_responses"] == {1: 0.0, 2: 0.0}
    # Some groups have a majority, and so a gradient.
    assert series["vote/zero_advantage_rate"][1] < 1 and series["actor/grad_norm"][1] > 0
    assert documented_cells()[family.name]["steps"] == str(len(series["actor/grad_norm"]))


def test_the_exported_policy_loads_and_has_changed(family: Family, folder: Path) -> None:
    model_class = AutoModelForImageTextToText if family.has_images else AutoModelForCausalLM
    trained, info = model_class.from_pretrained(folder / "run" / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before = model_class.from_pretrained(folder / "base").state_dict()
    after = trained.state_dict()
    assert after.keys() == before.keys()
    towers = {"visual" in name for name in after if not torch.equal(after[name], before[name])}
    assert towers == ({True, False} if family.has_images else {False})


def test_text_only_is_validated_evaluated_and_reported(family: Family, folder: Path) -> None:
    if family.has_images:
        pytest.skip("the recipe of families with images evaluates nothing")
    run = folder / "run"
    for moment in ("before", "after"):
        responses = read_whole(run / "evaluation" / f"{moment}.jsonl")
        # A greedy response and two samples per question.
        assert len(responses) == 3 * QUESTIONS and all(response.tokens > 0 for response in responses)
    assert set(scalars(run)["val-core/amc/acc/mean@1"]) == {2}
    report = json.loads((run / "report.json").read_text())
    assert report["questions"] == QUESTIONS and {"greedy accuracy", "maj@2"} <= report["scores"].keys()
    assert "the evaluation questions themselves" in (run / "report.md").read_text()
