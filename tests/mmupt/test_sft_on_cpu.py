"""Fine-tuning on the full stack: the loss falls, killed training continues identically, and vLLM loads the policy."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from full_stack import HANG_SECONDS, scalars
from omegaconf import OmegaConf
from response_rows import SETTINGS, responses, write_responses
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DistributedSampler
from transformers import AutoModelForImageTextToText
from verl.trainer.sft_trainer import create_sft_dataset
from verl.utils import hf_processor

from mmupt.baselines.sft import train_sft
from mmupt.evaluation.response_files import read_whole
from mmupt.runtime.run_lock import processes_of
from mmupt.tiny import FOLDER
from mmupt.tiny.demonstrations import GLANCE
from verl_ext.checkpoints import TRACKER

pytestmark = pytest.mark.full_stack

# An epoch has three updates.
ROWS = 26
STEPS = 6
TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from response_rows import SETTINGS
from mmupt.baselines.sft import train_sft
model, file, folder, save_steps, processes = sys.argv[1:]
settings = replace(SETTINGS, save_steps=int(save_steps), processes=int(processes))
train_sft(settings, model, Path(file), Path(folder))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_responses(tmp_path_factory.mktemp("responses") / "responses.parquet", responses(ROWS))


@pytest.fixture(scope="module")
def policy(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_sft(SETTINGS, str(FOLDER), file, tmp_path_factory.mktemp("run") / "sft")


def weights(policy: Path) -> Mapping[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def losses(policy: Path) -> dict[int, float]:
    return scalars(policy.parent)["train/loss"]


def first_batch(file: Path) -> list[dict[str, Any]]:
    """The sequences of the first update."""
    config = OmegaConf.create(
        {
            "custom_cls": {"path": "pkg://verl_ext.datasets.response_dataset", "name": "ResponseDataset"},
            "seed": SETTINGS.seed,
            "max_length": SETTINGS.max_length,
            "cache_dir": str(file.parent / "rows"),
            **dict.fromkeys(["instruction", "min_pixels", "max_pixels"]),
        }
    )
    processor = hf_processor(str(FOLDER))
    dataset = create_sft_dataset(str(file), config, processor.tokenizer, processor)
    sampler = DistributedSampler(dataset, num_replicas=1, rank=0, drop_last=True)
    return [dataset[index] for index in islice(sampler, SETTINGS.batch_size)]


def test_the_first_loss_is_the_mean_over_all_response_tokens_of_the_batch(policy: Path, file: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(FOLDER)
    token_losses = []
    for row in first_batch(file):
        logits = model(
            input_ids=row["input_ids"][None], position_ids=row["position_ids"][1:, None], **row["multi_modal_inputs"]
        ).logits[0, :-1]
        token_losses.append(cross_entropy(logits, row["input_ids"][1:], reduction="none")[row["loss_mask"][1:].bool()])
    assert losses(policy)[1] == pytest.approx(float(torch.cat(token_losses).mean()), rel=1e-4)


def test_the_loss_falls(policy: Path) -> None:
    by_step = losses(policy)
    assert list(by_step) == list(range(1, STEPS + 1))
    first, second = ([by_step[step] for step in epoch] for epoch in ((1, 2, 3), (4, 5, 6)))
    assert sum(second) < 0.5 * sum(first)


def test_transformers_loads_the_policy_and_every_part_of_it_was_trained(policy: Path) -> None:
    before, after = (AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (FOLDER, policy))
    assert before.keys() == after.keys()
    # veRL's merger writes bfloat16.
    changed = [name for name, tensor in before.items() if not torch.equal(tensor.bfloat16(), after[name])]
    assert {name.removeprefix("model.").split(".")[0] for name in changed} == {"visual", "language_model", "lm_head"}


def test_vllm_samples_careful_responses_from_the_policy(policy: Path, file: Path, tmp_path: Path) -> None:
    settings = [
        f"model={policy}", f"files={{test:{file}}}", f"output={tmp_path}", "preset=tiny", "samples=0", "score=False",
        "device=cpu",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "mmupt", "eval", *settings], check=True, timeout=HANG_SECONDS)
    answers = read_whole(tmp_path / "test.jsonl")
    assert len(answers) == ROWS
    # The base model only glances at most figures.
    assert sum(answer.response.startswith(GLANCE) for answer in answers) < 0.1 * ROWS


@pytest.mark.parametrize(
    ("step", "processes"), [(2, 1), (3, 2)], ids=["within an epoch", "at the end of an epoch, on two processes"]
)
def test_a_killed_training_continues_with_the_same_losses_and_weights(
    policy: Path, file: Path, tmp_path: Path, step: int, processes: int
) -> None:
    folder = tmp_path / "sft"
    tracker = folder / "checkpoints" / TRACKER
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    arguments = map(str, (FOLDER, file, folder, step, processes))
    killed = subprocess.Popen([sys.executable, "-c", TRAIN, *arguments], env=environment)
    deadline = time.monotonic() + HANG_SECONDS
    while not tracker.is_file() or int(tracker.read_text() or 0) < step:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    # Kill only this process: the processes of veRL that it started keep running.
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (folder / "model").exists()
    continued = train_sft(replace(SETTINGS, save_steps=step, processes=processes), str(FOLDER), file, folder)
    assert not processes_of(folder)
    # Sums over two processes are rounded differently.
    assert losses(continued) == pytest.approx(losses(policy), rel=1e-6 if processes == 1 else 1e-2)
    if processes == 1:
        expected = weights(policy)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(continued).items())
