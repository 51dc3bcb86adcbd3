"""LoRA on the real stack: adapters on the language layers train and reach vLLM, all that was there before stays.

The reward is `self_judge`, whose judge is the model before training in a separate vLLM.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from full_stack import scalars, train
from transformers import AutoModelForImageTextToText

from verl_ext.answers import extract_answer
from verl_ext.rewards.self_judge import judge_factor
from verl_ext.votes import vote

pytestmark = pytest.mark.full_stack


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With fused kernels as on GPUs.
    fused = "actor_rollout_ref.model.use_fused_kernels=True"
    return train("mmupt_tiny_lora", tmp_path_factory.mktemp("run"), "method=self_judge", fused)


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return AutoModelForImageTextToText.from_pretrained("recipes/mmupt/tiny/model").state_dict()


def test_adapters_of_the_language_layers_train_and_nothing_else_changes(
    run_folder: Path, base: dict[str, torch.Tensor]
) -> None:
    checkpoint = run_folder / "checkpoints" / "global_step_2" / "actor" / "model_world_size_1_rank_0.pt"
    state = {name: shard.to_local() for name, shard in torch.load(checkpoint, weights_only=False).items()}
    adapters = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    assert adapters and all(".language_model.layers." in name for name in adapters)
    # B starts as zeros.
    assert all(tensor.any() for name, tensor in adapters.items() if ".lora_B." in name)
    kept = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if name not in adapters
    }
    assert kept.keys() == base.keys()
    assert all(torch.equal(kept[name], base[name]) for name in base)


def test_the_model_before_training_judges_every_response_with_an_answer(run_folder: Path) -> None:
    verdicts: Counter[float] = Counter()
    for step in (1, 2):
        groups = defaultdict(list)
        for line in (run_folder / "rollouts" / f"{step}.jsonl").read_text().splitlines():
            row = json.loads(line)
            groups[row["uid"].split("_")[0]].append(row)
        for group in groups.values():
            for members in vote([extract_answer(row["output"]) for row in group]).classes:
                share = len(members) / len(group)
                for member in members:
                    reward = pytest.approx(group[member]["score"])
                    verdicts[next(one for one in (0.0, 1.0) if min(1.0, share * judge_factor(one)) == reward)] += 1
    # A reply that could not be read would count as no.
    assert verdicts[1.0] > 0
    assert verdicts.total() > 8


def test_vllm_samples_from_the_adapted_policy(run_folder: Path) -> None:
    series = scalars(run_folder)
    differences = series["actor/rollout_probs_diff_mean"]
    assert set(differences) == {1, 2} and max(differences.values()) < 1e-4
    # The reference is the actor without its adapters: in the second step they differ.
    assert {step: value > 1e-8 for step, value in series["actor/kl_loss"].items()} == {1: False, 2: True}


def test_the_exported_policy_has_the_adapters_merged_and_the_vision_tower_of_before(
    run_folder: Path, base: dict[str, torch.Tensor]
) -> None:
    exported = AutoModelForImageTextToText.from_pretrained(run_folder / "model").state_dict()
    assert exported.keys() == base.keys()
    for name, tensor in base.items():
        is_adapted = ".language_model.layers." in name and name.endswith("_proj.weight")
        # veRL's merger writes bfloat16.
        assert torch.equal(exported[name], tensor.bfloat16()) != is_adapted, name
