"""Records and reads the cost of a run: labels, generated tokens, and device hours."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from mmupt.baselines.stage_runner import read_summary, stages_folder
from mmupt.hardware import judge_gpus, rollout_gpus
from mmupt.training.metric_series import read_series
from verl_ext.files import file_list, json_line
from verl_ext.metric_names import RESPONSE_LENGTH

# File in the run folder, with one line per finished or failed training.
HOURS = "hours.jsonl"


@dataclass(frozen=True)
class Cost:
    """The cost of training the policy of a run, without evaluation.

    Attributes:
        labels: number of ground truths read in training.
        tokens: number of tokens generated for training.
        hours: hours of a `device`, busy or idle. Time before a kill -9 is missing.
        device: "GPU" or "core" (CPU core).
    """

    labels: int
    tokens: int
    hours: float
    device: str


def devices(config: DictConfig) -> int:
    """The number of GPUs of a run, or of CPU cores for a run on CPUs."""
    if config.trainer.device == "cpu":
        return len(os.sched_getaffinity(0))
    training = int(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    return training + rollout_gpus(config) + judge_gpus(config)


@contextmanager
def hours_of(config: DictConfig) -> Iterator[None]:
    """Add the duration of the block to the device hours of the run, even if the block fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        used = (time.monotonic() - start) * devices(config) / 3600
        with (Path(config.mmupt.run_folder) / HOURS).open("a") as file:
            file.write(json_line({"device": config.trainer.device, "hours": used}))


def read_cost(run_folder: Path) -> Cost:
    """The cost of a run so far, from its config, metrics and device hours."""
    config = OmegaConf.load(run_folder / "config.yaml")
    assert isinstance(config, DictConfig)
    file = run_folder / HOURS
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if config.mmupt.baseline.method:
        summary = read_summary(stages_folder(run_folder))
        questions, tokens = summary["rows"], summary["generated_tokens"]["all"]
    else:
        questions, tokens = _of_steps(config, run_folder)
    return Cost(
        labels=questions if config.data.supervised else 0,
        tokens=tokens,
        hours=sum(line["hours"] for line in lines),
        device={"cpu": "core", "cuda": "GPU"}[config.trainer.device],
    )


def _of_steps(config: DictConfig, run_folder: Path) -> tuple[int, int]:
    """The number of questions trained on, and the number of tokens generated for them."""
    lengths = read_series(run_folder / "tensorboard").get(RESPONSE_LENGTH, {})
    per_prompt = config.reward.reward_kwargs.vote.vote_n or config.actor_rollout_ref.rollout.n
    prompts = len(lengths) * config.data.train_batch_size
    rows = sum(pq.read_metadata(file).num_rows for file in file_list(config.data.train_files))
    if config.data.train_max_samples > 0:
        rows = min(rows, config.data.train_max_samples)
    return min(rows, prompts), round(sum(lengths.values()) * config.data.train_batch_size * per_prompt)
