"""LoRA on the full stack: adapters of the language layers train and reach vLLM, and all other weights stay the same.

The reward is `self_judge`: the base model in a separate vLLM is the judge. A collapse stops the run after its second
step.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from full_stack import scalars, train
from transformers import AutoModelForImageTextToText

from mmupt_data.figure_task import write_figures
from verl_ext.answers import extract_answer
from verl_ext.collapse import History
from verl_ext.rewards.self_judge import judge_factor
from verl_ext.votes import vote

pytestmark = pytest.mark.full_stack

OVERRIDES = (
    "method=self_judge",
    # Recipes for GPUs use fused kernels.
    "actor_rollout_ref.model.use_fused_kernels=True",
    "trainer.total_training_steps=6",
    "trainer.test_freq=2",
    "data.val_max_samples=16",
    # Any fall of accuracy counts as a collapse, see `run_folder`.
    "mmupt.stop_on_collapse.z=0",
    "mmupt.stop_on_collapse.patience=1",
)


@pytest.fixture(scope="module")
def questions() -> set[str]:
    """The ids of the validation questions."""
    write_figures(Path("datasets/figures"))
    return {*pq.read_table("datasets/figures/validation.parquet", columns=["id"])["id"].to_pylist()}


@pytest.fixture(scope="module")
def run_folder(questions: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a history of perfect accuracy, so its first validation is a fall."""
    folder = tmp_path_factory.mktemp("run")
    history = [{"step": -3, "right": {question: [1.0] for question in sorted(questions)}}]
    history += [{"step": step, "majority_ratio": 0.01} for step in (-2, -1, 0)]
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in history))
    return train("mmupt_tiny_lora", folder, *OVERRIDES)


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
    frozen = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if name not in adapters
    }
    assert frozen.keys() == base.keys()
    assert all(torch.equal(frozen[name], base[name]) for name in base)


def test_the_base_model_judges_every_response_with_an_answer(run_folder: Path) -> None:
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
                    verdict = next(v for v in (0.0, 1.0) if min(1.0, share * judge_factor(v)) == reward)
                    verdicts[verdict] += 1
    # An unreadable reply would count as no.
    assert verdicts[1.0] > 0
    assert verdicts.total() > 8


def test_vllm_samples_from_the_adapted_policy(run_folder: Path) -> None:
    series = scalars(run_folder)
    differences = series["actor/rollout_probs_diff_mean"]
    assert set(differences) == {1, 2} and max(differences.values()) < 1e-4
    # The reference is the actor without its adapters, so the policies differ from the second step on.
    assert {step: value > 1e-8 for step, value in series["actor/kl_loss"].items()} == {1: False, 2: True}


def test_the_exported_policy_has_merged_adapters_and_an_unchanged_vision_tower(
    run_folder: Path, base: dict[str, torch.Tensor]
) -> None:
    exported = AutoModelForImageTextToText.from_pretrained(run_folder / "model").state_dict()
    assert exported.keys() == base.keys()
    for name, tensor in base.items():
        is_adapted = ".language_model.layers." in name and name.endswith("_proj.weight")
        # veRL's merger writes bfloat16.
        assert torch.equal(exported[name], tensor.bfloat16()) != is_adapted, name


def test_a_collapse_stops_the_trainer_and_the_best_policy_is_exported(run_folder: Path, questions: set[str]) -> None:
    content = json.loads((run_folder / "collapse.json").read_text())
    assert (content["step"], content["kept_step"]) == (2, 2)
    assert set(History(run_folder / "history.jsonl").validations[2]) < questions
    assert (run_folder / "model" / "global_step.txt").read_text() == "2"
    assert not list(run_folder.glob("checkpoints/best/*/actor/optim_*"))
    log = (run_folder / "logs" / "train.log").read_text()
    assert log.count("The run collapsed and was stopped after step 2") == 1
    # Not from the log: Ray forwards the last lines of a worker with a delay, and may end before.
    assert set(scalars(run_folder)["vote/majority_ratio"]) == {1, 2}


def test_the_same_command_does_not_continue_training_after_a_collapse(run_folder: Path) -> None:
    log = run_folder / "logs" / "train.log"
    before = log.read_text().count("Training Progress")
    train("mmupt_tiny_lora", run_folder, *OVERRIDES)
    assert log.read_text().count("The run collapsed and was stopped after step 2") == 2
    assert log.read_text().count("Training Progress") == before
