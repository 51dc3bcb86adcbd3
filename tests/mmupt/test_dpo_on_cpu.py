"""DPO on the real stack: the margin grows, a killed training continues as if it had not been, the policy is a model."""

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

# What is said of a pair that is too long; then a training step of a model with the vocabulary of Qwen2.5-VL-7B, and a
# forward pass with logits for comparison.
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
        found = [one.numel() for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        self.elements = max(self.elements, *found, 0)
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
    lines = (policy.parent / "steps.jsonl").read_text().splitlines()
    return {step["step"]: step[name] for step in map(json.loads, lines)}


def preference(policy: Path, file: Path) -> float:
    """How much more log-probability the chosen responses have than the rejected ones, on average."""
    model = AutoModelForImageTextToText.from_pretrained(policy).eval()
    rows = pq.read_table(file).to_pylist()
    batch = PairCollator(AutoProcessor.from_pretrained(policy))(rows)
    learnt = batch.pop("completion_mask")[:, 1:]
    with torch.no_grad():
        predicted = model(**batch).logits[:, :-1].log_softmax(-1)
    of_tokens = predicted.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    chosen, rejected = (of_tokens * learnt).sum(1).chunk(2)
    return float((chosen - rejected).mean())


def weights(policy: Path) -> Mapping[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def test_the_chosen_responses_gain_on_the_rejected_ones(policy: Path) -> None:
    margins = series(policy, "rewards/margins")
    assert list(margins) == list(range(1, STEPS + 1))
    # The policy of the first step is the reference.
    assert margins[1] == pytest.approx(0, abs=1e-4)
    assert margins[STEPS] > margins[2] > 0.01


def test_the_loss_is_that_of_the_paper(policy: Path, file: Path) -> None:
    losses, margins = series(policy, "loss"), series(policy, "rewards/margins")
    # Equation 7 at a margin of 0; and its convexity, as each is a mean over pairs.
    assert losses[1] == pytest.approx(math.log(2), abs=1e-4)
    assert all(losses[step] >= math.log1p(math.exp(-margins[step])) - 1e-4 for step in margins)


def test_the_policy_differs_from_the_model_by_its_weights_alone(policy: Path) -> None:
    before, after = weights(FOLDER), weights(policy)
    assert {name: (one.shape, one.dtype) for name, one in after.items()} == {
        name: (one.shape, one.dtype) for name, one in before.items()
    }
    trained = {name.partition(".")[0] for name, one in after.items() if not torch.equal(one, before[name])}
    assert trained == {"visual", "model", "lm_head"}
    assert AutoConfig.from_pretrained(policy).dtype == AutoConfig.from_pretrained(FOLDER).dtype
    assert AutoProcessor.from_pretrained(policy).chat_template == AutoProcessor.from_pretrained(FOLDER).chat_template


def test_the_policy_prefers_the_chosen_responses_more_than_the_model_did(policy: Path, file: Path) -> None:
    # 0.1 is beta, 1 is a margin that it had learnt two steps before the end.
    assert SETTINGS.beta * (preference(policy, file) - preference(FOLDER, file)) > 1


def test_a_killed_training_continues_as_if_it_had_not_been_killed(policy: Path, file: Path, tmp_path: Path) -> None:
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
    once = weights(policy)
    for name, tensor in weights(continued).items():
        torch.testing.assert_close(tensor, once[name])


def test_processes_that_share_the_model_take_the_steps_of_one(
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
    # A head whose gradient were not summed over processes would miss by 2e-3 in the second step.
    assert series(sharded, "rewards/margins") == pytest.approx(series(policy, "rewards/margins"), abs=1e-4)
    assert weights(sharded).keys() == weights(policy).keys()


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What STEP prints."""
    folder = tmp_path_factory.mktemp("step")
    # So long that logits are larger than the table of embeddings.
    question = " ".join(["what is the sum of the three bars ?"] * 30)
    rows = [pair(number, prompt=[{"role": "user", "content": f"<image>{question}"}]) for number in range(4)]
    arguments = [str(FOLDER), str(write_pairs(folder / "pairs.parquet", rows)), str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TRL_FOLDER), str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", STEP, *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    return done.stdout


def test_a_pair_that_is_too_long_is_named(step: str) -> None:
    assert re.search(r"refused .*id figure-0: \d+ tokens with its longer response, over max_length=30", step)


def test_no_step_makes_the_logits_of_all_tokens(step: str) -> None:
    logits, of_step, of_forward = map(int, step.rpartition("elements ")[2].split())
    assert of_forward >= logits > 2 * of_step
