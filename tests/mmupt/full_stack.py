"""Trains a recipe of the tiny model for a few small steps, as a user would, and reads the metrics it logged."""

import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# After this time a command counts as hung. Two concurrent commands take several minutes on a slow machine.
HANG_SECONDS = 1200
SMALL = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.total_training_steps=2",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "mmupt.evaluation_files=null",
)


def train(recipe: str, folder: Path, *overrides: str, cwd: Path | None = None) -> Path:
    """Train for two steps of four prompts with four responses each, unless overridden; return the run folder.

    `cwd` is the working directory of the command, in which recipes look for their data sets.
    """
    command = [sys.executable, "-m", "mmupt", "train", recipe, f"mmupt.run_folder={folder}"]
    subprocess.run([*command, *SMALL, *overrides], check=True, timeout=HANG_SECONDS, cwd=cwd)
    return folder


def scalars(run_folder: Path) -> dict[str, dict[int, float]]:
    """Metric -> step -> value; a step that was repeated after a restart has its last value."""
    series: dict[str, dict[int, float]] = {}
    for file in sorted(run_folder.glob("tensorboard/**/events.out.tfevents.*")):
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            series.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return series
