"""Defaults of the plugin's own keys; a config names only the keys that it changes. Pure.

Recipes declare every key that they change, or that users may override on the command line, in
`recipes/mmupt/config/base.yaml`.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

SAMPLER = ("pkg://verl_ext.rollout.replay_buffer", "VoteReplayBuffer")
DATASET = ("pkg://verl_ext.datasets.unlabelled_dataset", "UnlabelledDataset")
SHARED_PROMPT_AGENT = "shared_prompt_agent"

SAMPLER_KEY = "trainer.v1.sampler.sampler_kwargs"

# `sampler_kwargs` of VoteReplayBuffer. Most repeat other keys, because veRL passes a custom sampler nothing else.
SAMPLER_DEFAULTS: Mapping[str, Any] = {
    # Responses per prompt, to count those that failed.
    "n": "${actor_rollout_ref.rollout.n}",
    # Vote settings, among them the number of responses that vote.
    "reward_kwargs": "${oc.select:reward.reward_kwargs,null}",
    # Identifies control runs, which a collapse never stops.
    "reward_manager": "${reward.reward_manager.name}",
    # veRL's own group filter.
    "filter_groups": "${algorithm.filter_groups}",
    # Whether a group whose responses all failed is replaced.
    "sync_refill_failed_groups": "${trainer.v1.sampler.sync_refill_failed_groups}",
    # Prompts per step.
    "train_batch_size": "${data.train_batch_size}",
    # Prompts per batch of the data loader.
    "gen_batch_size": "${data.gen_batch_size}",
    # Files whose sidecars have the ground truth for diagnostics; null: rows carry their own or none.
    "train_files": None,
    # File of vote shares and validation scores.
    "history": "${trainer.default_local_dir}/history.jsonl",
    # Folder of saved votes.
    "votes": "${trainer.default_local_dir}/votes",
    # Groups saved per step; null for all, 0 for none.
    "votes_per_step": 32,
    # Groups per table that is sent to trackers, and steps between tables.
    "tracked_groups": {"number": 8, "every": 10},
    # Run and last step of each tracker, for a restart.
    "trackers": "${trainer.default_local_dir}/trackers.json",
    # Folder of veRL's checkpoints; the best ones are kept if a collapse may stop the run.
    "checkpoints": "${trainer.default_local_dir}",
    # Whether and when a collapse stops the run; missing keys take the defaults of CollapseRule.
    "stop_on_collapse": {"enable": False},
    # Seconds without any progress after which the run ends.
    "watchdog_seconds": 3600,
    # Seconds between polls for finished groups.
    "poll_interval": 0.05,
}

# The keys of `data` that UnlabelledDataset reads beyond veRL's own.
DATA_DEFAULTS: Mapping[str, Any] = {
    # Whether training rows get their ground truth.
    "supervised": False,
    # Text appended to every question.
    "instruction": None,
    # Pixel limits of training images.
    "min_pixels": None,
    "max_pixels": None,
    # Pixel limits of validation images.
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
    """Fill in the `sampler_kwargs` that a config with `VoteReplayBuffer` leaves out."""
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
