"""Defaults of the plugin's own keys, so that a configuration needs to name only those that it changes. Pure.

A recipe declares every key that it changes or that users may override on the command line, in
`recipes/mmupt/config/base.yaml`.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

SAMPLER = ("pkg://verl_ext.rollout.replay_buffer", "VoteReplayBuffer")
DATASET = ("pkg://verl_ext.datasets.unlabelled_dataset", "UnlabelledDataset")
SHARED_PROMPT_AGENT = "shared_prompt_agent"

SAMPLER_KEY = "trainer.v1.sampler.sampler_kwargs"

# `sampler_kwargs` of VoteReplayBuffer. veRL passes a custom sampler nothing else, so most of them repeat other keys.
SAMPLER_DEFAULTS: Mapping[str, Any] = {
    # Responses per prompt, to count those that failed.
    "n": "${actor_rollout_ref.rollout.n}",
    # How many of them vote.
    "reward_kwargs": "${oc.select:reward.reward_kwargs,null}",
    # Controls are never stopped for a collapse.
    "reward_manager": "${reward.reward_manager.name}",
    # veRL's own group filter.
    "filter_groups": "${algorithm.filter_groups}",
    # Whether a group whose responses all failed is replaced.
    "sync_refill_failed_groups": "${trainer.v1.sampler.sync_refill_failed_groups}",
    # Prompts per step.
    "train_batch_size": "${data.train_batch_size}",
    # Prompts that the data loader returns at a time.
    "gen_batch_size": "${data.gen_batch_size}",
    # Files with sidecars of ground truth, for diagnostics; null: rows carry their own, or none.
    "train_files": None,
    # Vote shares and validations.
    "history": "${trainer.default_local_dir}/history.jsonl",
    # Folder of the votes on file.
    "votes": "${trainer.default_local_dir}/votes",
    # Groups per step on file; null for all, 0 for none.
    "votes_per_step": 32,
    # Groups of a table that trackers get, and steps between two tables.
    "tracked_groups": {"number": 8, "every": 10},
    # What each tracker has of the run, for a restart.
    "trackers": "${trainer.default_local_dir}/trackers.json",
    # veRL's checkpoints, of which the best are kept if a collapse is to stop the run.
    "checkpoints": "${trainer.default_local_dir}",
    # Whether and when a collapse stops the run; missing keys have the defaults of CollapseRule.
    "stop_on_collapse": {"enable": False},
    # Seconds without any progress after which the run ends.
    "watchdog_seconds": 3600,
    # Seconds between two looks at which groups have finished.
    "poll_interval": 0.05,
}

# What UnlabelledDataset reads from `data` beyond veRL's own keys.
DATA_DEFAULTS: Mapping[str, Any] = {
    # Whether training rows get their ground truth.
    "supervised": False,
    # Text after every question.
    "instruction": None,
    # Pixels of a training image.
    "min_pixels": None,
    "max_pixels": None,
    # Pixels of an image in validation.
    "validation_min_pixels": None,
    "validation_max_pixels": None,
    # Share of self-generated questions.
    "generated_share": None,
    # JSON file that lists rows to leave out.
    "dropped_rows": None,
    # Folder for the rows in Arrow format; veRL's own default.
    "cache_dir": "~/.cache/verl/rlhf",
}


def uses(config: DictConfig, key: str, extension: tuple[str, str]) -> bool:
    """Whether `key`, a block of `path` and `name`, selects this class of the plugin."""
    return (OmegaConf.select(config, f"{key}.path"), OmegaConf.select(config, f"{key}.name")) == extension


def complete_config(config: DictConfig) -> None:
    """Fill in the `sampler_kwargs` that a configuration with `VoteReplayBuffer` leaves out."""
    if not uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER):
        return
    files = "${data.train_files}" if uses(config, "data.custom_cls", DATASET) else None
    if OmegaConf.select(config, SAMPLER_KEY) is None:
        OmegaConf.update(config, SAMPLER_KEY, {}, force_add=True)
    fill(OmegaConf.select(config, SAMPLER_KEY), {**SAMPLER_DEFAULTS, "train_files": files})


def fill(block: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Add the keys that a block lacks."""
    with open_dict(block):
        for name, value in defaults.items():
            if name not in block:
                block[name] = value
