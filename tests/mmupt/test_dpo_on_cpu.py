"""DPO on the full stack: the margin grows, killed training continues identically, and the policy loads as a model."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from full_stack import HANG_SECONDS
from preference_pairs import SETTINGS, pair, write_pairs
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from mmupt.baselines.dpo import TRL_FOLDER, train_dpo
from mmupt.baselines.preference_pairs import PairCollator
from mmupt.tiny import FOLDER

pytestmark = [
    pytest.mark.full_stack,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="TRL has no release for Python 3.10"),
]

STEPS = 6
TRAIN = """
import sys
from pathlib import Path
from preference_pairs import SETTINGS
from mmupt.baselines.dpo import train_dpo
from mmupt.baselines.preference_pairs import PairCollator
train_dpo(SETTINGS, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""

# Prints the error about a pair that is too long, then the largest tensors of a training step and of a plain forward
# pass of a model with the vocabulary of Qwen2.5-VL-7B.
STEP = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from preference_pairs import SETTINGS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText, AutoProcessor
from mmupt.baselines.dpo_process import pair_trainer

class Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result

base, file, folder = map(Path, sys.argv[1:])
model = AutoModelForImageTextToText.from_pretrained(base)
model.resize_token_embeddings(152064, mean_resizing=False)
model.save_pretrained(folder / "wide")
AutoProcessor.from_pretrained(base).save_pretrained(folder / "wide")
try:
    pair_trainer(replace(SETTINGS, max_length=30), str(folder / "wide"), file, folder)
except ValueError as error:
    print("refused", error)
trainer = pair_trainer(replace(SETTINGS, max_length=1024), str(folder / "wide"), file, folder)
trainer.current_gradient_accumulation_steps = 1
batch = next(iter(trainer.get_train_dataloader()))
with Largest() as step:
    trainer.training_step(trainer.model, dict(batch))
plain = {name: value for name, value in batch.items() if name != "completion_mask"}
with Largest() as forward, torch.no_grad():
    model(**plain)
print("elements", batch["input_ids"].numel() * 152064, step.elements, forward.elements)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", [pair(number) for number in range(12)])


@pytest.fixture(scope="module")
def policy(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_dpo(SETTINGS, str(FOLDER), file, tmp_path_factory.mktemp("run") / "dpo")


def series(policy: Path, name: str) -> dict[int, float]:
    """The values of a metric by step."""
    lines = (policy.parent / "steps.jsonl").read_text().splitlines()
    return {step["step"]: step[name] for step in map(json.loads, lines)}


def preference(policy: Path, file: Path) -> float:
    """The mean log-probability of the chosen responses minus the mean of the rejected responses."""
    model = AutoModelForImageTextToText.from_pretrained(policy).eval()
    rows = pq.read_table(file).to_pylist()
    batch = PairCollator(AutoProcessor.from_pretrained(policy))(rows)
    completion_mask = batch.pop("completion_mask")[:, 1:]
    with torch.no_grad():
        log_probs = model(**batch).logits[:, :-1].log_softmax(-1)
    token_log_probs = log_probs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    chosen, rejected = (token_log_probs * completion_mask).sum(1).chunk(2)
    return float((chosen - rejected).mean())


def weights(policy: Path) -> Mapping[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def test_the_margin_between_chosen_and_rejected_responses_grows(policy: Path) -> None:
    margins = series(policy, "rewards/margins")
    assert list(margins) == list(range(1, STEPS + 1))
    # At the first step, the policy equals the reference.
    assert margins[1] == pytest.approx(0, abs=1e-4)
    assert margins[STEPS] > margins[2] > 0.01


def test_the_loss_matches_the_equation_of_the_paper(policy: Path, file: Path) -> None:
    losses, margins = series(policy, "loss"), series(policy, "rewards/margins")
    # Equation 7 at a margin of 0; then Jensen's inequality, as losses and margins are means over pairs.
    assert losses[1] == pytest.approx(math.log(2), abs=1e-4)
    assert all(losses[step] >= math.log1p(math.exp(-margins[step])) - 1e-4 for step in margins)


def test_the_policy_differs_from_the_base_model_by_its_weights_alone(policy: Path) -> None:
    before, after = weights(FOLDER), weights(policy)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in before.items()
    }
    trained = {name.partition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert trained == {"visual", "model", "lm_head"}
    assert AutoConfig.from_pretrained(policy).dtype == AutoConfig.from_pretrained(FOLDER).dtype
    assert AutoProcessor.from_pretrained(policy).chat_template == AutoProcessor.from_pretrained(FOLDER).chat_template


def test_the_policy_prefers_the_chosen_responses_more_than_the_base_model(policy: Path, file: Path) -> None:
    # beta is 0.1; the training reached a margin of 1 two steps before its end.
    assert SETTINGS.beta * (preference(policy, file) - preference(FOLDER, file)) > 1


def test_a_killed_training_continues_with_the_same_margins_and_weights(
    policy: Path, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dpo"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", TRAIN, str(FOLDER), str(file), str(folder)]
    killed = subprocess.Popen(command, start_new_session=True, env=environment)
    deadline = time.monotonic() + HANG_SECONDS
    while not (folder / "checkpoints" / "checkpoint-2" / "whole").is_file():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (folder / "model").exists()
    continued = train_dpo(SETTINGS, str(FOLDER), file, folder)
    assert series(continued, "rewards/margins") == pytest.approx(series(policy, "rewards/margins"), abs=1e-4)
    expected = weights(policy)
    for name, tensor in weights(continued).items():
        torch.testing.assert_close(tensor, expected[name])


def test_sharded_processes_train_like_one_process(
    policy: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def run_sharded(command: list[str], **options: Any) -> None:
        module = command.index("mmupt.baselines.dpo_process")
        path = os.pathsep.join([str(Path(__file__).parent), options["env"]["PYTHONPATH"]])
        command = [*command[:module], "fsdp_on_cpu", *command[module + 1 :]]
        run(command, check=True, env={**options["env"], "PYTHONPATH": path})

    monkeypatch.setattr(subprocess, "run", run_sharded)
    sharded = train_dpo(
        replace(SETTINGS, processes=2, device="cuda", save_steps=STEPS), str(FOLDER), file, tmp_path / "dpo"
    )
    # If the gradient of the head were not summed over processes, the second step would differ by 2e-3.
    assert series(sharded, "rewards/margins") == pytest.approx(series(policy, "rewards/margins"), abs=1e-4)
    assert weights(sharded).keys() == weights(policy).keys()


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of STEP."""
    folder = tmp_path_factory.mktemp("step")
    # Long enough for the logits to be larger than the embeddings.
    question = " ".join(["what is the sum of the three bars ?"] * 30)
    rows = [pair(number, prompt=[{"role": "user", "content": f"<image>{question}"}]) for number in range(4)]
    arguments = [str(FOLDER), str(write_pairs(folder / "pairs.parquet", rows)), str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TRL_FOLDER), str(Path(__file__).parent), *sys.path]),
    }
    process = subprocess.run(
        [sys.executable, "-c", STEP, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    return process.stdout


def test_a_pair_that_is_too_long_is_named(step: str) -> None:
    assert re.search(r"refused .*id figure-0: \d+ tokens with its longer response, over max_length=30", step)


def test_a_training_step_never_holds_the_logits_of_all_tokens(step: str) -> None:
    logits, largest_in_step, largest_in_forward = map(int, step.rpartition("elements ")[2].split())
    assert largest_in_forward >= logits > 2 * largest_in_step
