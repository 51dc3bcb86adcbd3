"""DPO on the real stack: the margin grows, a killed training continues as if it had not been, the policy is a model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from preference_pairs import SETTINGS, pair, write_pairs
from safetensors.torch import load_file
from transformers import AutoProcessor

from recipes.mmupt.baselines.dpo import train_dpo
from recipes.mmupt.tiny import FOLDER

pytestmark = [
    pytest.mark.full_stack,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="TRL has no release for Python 3.10"),
]

STEPS = 6
TRAIN = """
import sys
from pathlib import Path
from preference_pairs import SETTINGS
from recipes.mmupt.baselines.dpo import train_dpo
train_dpo(SETTINGS, sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
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


def weights(policy: Path) -> Mapping[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def test_the_chosen_responses_gain_on_the_rejected_ones(policy: Path) -> None:
    margins = series(policy, "rewards/margins")
    assert list(margins) == list(range(1, STEPS + 1))
    # The policy of the first step is the reference.
    assert margins[1] == pytest.approx(0, abs=1e-4)
    assert margins[STEPS] > margins[2] > 0.01


def test_the_policy_differs_from_the_model_by_its_weights_alone(policy: Path) -> None:
    before, after = weights(FOLDER), weights(policy)
    assert {name: (one.shape, one.dtype) for name, one in after.items()} == {
        name: (one.shape, one.dtype) for name, one in before.items()
    }
    trained = {name.split(".")[1] for name, one in after.items() if not torch.equal(one, before[name])}
    assert "visual" in trained
    assert json.loads((policy / "config.json").read_text()) == json.loads((FOLDER / "config.json").read_text())
    assert AutoProcessor.from_pretrained(policy).chat_template == AutoProcessor.from_pretrained(FOLDER).chat_template


def test_a_killed_training_continues_as_if_it_had_not_been_killed(policy: Path, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dpo"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", TRAIN, str(FOLDER), str(file), str(folder)]
    killed = subprocess.Popen(command, start_new_session=True, env=environment)
    deadline = time.monotonic() + 300
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


def test_two_processes_take_the_steps_of_one(policy: Path, file: Path, tmp_path: Path) -> None:
    parallel = train_dpo(replace(SETTINGS, processes=2), str(FOLDER), file, tmp_path / "dpo")
    assert series(parallel, "rewards/margins") == pytest.approx(series(policy, "rewards/margins"), abs=1e-3)


def test_a_pair_that_is_too_long_is_named(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        train_dpo(replace(SETTINGS, max_length=30), str(FOLDER), file, tmp_path / "dpo")
    assert "tokens with its longer response, over max_length=30" in capfd.readouterr().err
