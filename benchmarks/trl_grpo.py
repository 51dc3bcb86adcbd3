"""Start-up and step time of TRL's GRPOTrainer on the tiny recipe, with its model, data, batch, settings and vote.

    PYTHONPATH=.venv/baselines .venv/bin/python benchmarks/trl_grpo.py [--steps 7] [KEY=VALUE ...]

Prints JSON: `start_up` is the time from the start of this process to the start of the first step in seconds, `steps`
the seconds from the end of each step to the end of the next, and `response_tokens` the mean response length of each
step. TRL generates with Hugging Face's `generate` in the training process, its default. Settings shared with veRL come
from the recipe; gradient checkpointing and bf16 are off, as in the recipe. TRL has one thread, like veRL's processes,
unless OMP_NUM_THREADS is set: two threads are many times slower when anything else runs on two cores. The order of
prompts differs. Needs Python 3.11 or newer, on which `make setup` installs TRL into `.venv/baselines`. Overrides change
the recipe.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import pyarrow.parquet as pq
from datasets import Dataset
from omegaconf import DictConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mmupt.compose import load_recipe
from mmupt_data import figure_task
from verl_ext.answers import extract_answer
from verl_ext.images import decode
from verl_ext.votes import vote


class Clock(TrainerCallback):
    """Records when training begins and when each step ends, in seconds since the epoch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.time())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.time())


def read_prompts(file: str) -> Dataset:
    """Read a data set (`data/mmupt_data/row_schema.py`, one image per question) into TRL's columns."""
    rows = pq.read_table(file, columns=["prompt", "images"]).to_pylist()
    return Dataset.from_list(
        [
            {
                # TRL adds the image placeholder before the question.
                "prompt": [{**row["prompt"][0], "content": row["prompt"][0]["content"].removeprefix("<image>")}],
                "image": decode(row["images"][0]["bytes"]).image,
            }
            for row in rows
        ]
    )


def configure(recipe: DictConfig, steps: int, folder: str) -> GRPOConfig:
    """Translate the recipe's settings to TRL's."""
    actor, rollout = recipe.actor_rollout_ref.actor, recipe.actor_rollout_ref.rollout
    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        seed=recipe.mmupt.seed,
        per_device_train_batch_size=recipe.data.train_batch_size * rollout.n,
        num_generations=rollout.n,
        max_completion_length=recipe.data.max_response_length,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        beta=actor.kl_loss_coef,
        epsilon=actor.clip_ratio_low,
        epsilon_high=actor.clip_ratio_high,
        learning_rate=actor.optim.lr,
        lr_scheduler_type="constant",
        adam_beta1=actor.optim.betas[0],
        adam_beta2=actor.optim.betas[1],
        weight_decay=actor.optim.weight_decay,
        max_grad_norm=actor.optim.clip_grad,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )


def main() -> None:
    """Train, and print the times as JSON on the last line."""
    parser = argparse.ArgumentParser(description="Start-up and step time of TRL's GRPOTrainer on the tiny recipe.")
    parser.add_argument("--steps", type=int, default=7, help="steps to train (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides of the recipe")
    arguments = parser.parse_args()
    recipe, _ = load_recipe("mmupt_tiny", arguments.overrides)
    figure_task.write_figures(Path("datasets/figures"))

    def majority_vote(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        answers = [extract_answer(message["content"]) for (message,) in completions]
        n = recipe.actor_rollout_ref.rollout.n
        return [reward for first in range(0, len(answers), n) for reward in vote(answers[first : first + n]).rewards]

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=recipe.actor_rollout_ref.model.path,
            reward_funcs=majority_vote,
            args=configure(recipe, arguments.steps, folder),
            train_dataset=read_prompts(recipe.data.train_files),
            callbacks=[clock],
        )
        trainer.train()
    result = {
        "start_up": clock.times[0] - psutil.Process().create_time(),
        "steps": [end - begin for begin, end in pairwise(clock.times)],
        "response_tokens": [
            entry["completions/mean_length"] for entry in trainer.state.log_history if "reward" in entry
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
