"""Finds complete checkpoints, and repairs the tracker by which veRL resumes. Imports no veRL.

veRL rewrites its tracker in place, after the checkpoint: a kill at that moment leaves it empty, and a kill before it
leaves a checkpoint with files missing. `CheckpointMarker` in `callback.py` therefore marks finished checkpoints.
"""

import os
import re
import shutil
from pathlib import Path

from verl_ext.files import write_atomically

TRACKER = "latest_checkpointed_iteration.txt"
MARKER = "whole"


def checkpoint_of(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step, veRL's layout."""
    return folder / f"global_step_{step}"


def mark_whole(checkpoint: Path) -> None:
    """Mark a finished checkpoint; its files reach the disk before the mark does."""
    os.sync()
    (checkpoint / MARKER).touch()


def whole_steps(folder: Path) -> list[int]:
    """Return the steps of all whole checkpoints, in their order."""
    return [step for step, checkpoint in _steps(folder) if is_whole(checkpoint)]


def last_whole_step(folder: Path) -> int:
    """Return the step of the last whole checkpoint, 0 if there is none."""
    return max(whole_steps(folder), default=0)


def prune(folder: Path, limit: int | None) -> None:
    """Remove checkpoints older than the last `limit` whole ones; None, or less than 1, removes nothing.

    veRL removes only the actors of checkpoints that it has saved since its start. This also removes checkpoints of
    earlier starts and what a kill or veRL has left of others, but not the weights that `best` keeps elsewhere.
    """
    whole = whole_steps(folder)
    if limit is None or limit < 1 or not whole:
        return
    kept = whole[-limit:]
    for step, checkpoint in _steps(folder):
        if step < kept[-1] and step not in kept:
            if step in whole:
                print(f"removing {checkpoint}: {limit} checkpoints are kept")
            shutil.rmtree(checkpoint)


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """The folders of checkpoints, whole or not, with their steps, in their order."""
    found = ((re.fullmatch(r"global_step_(\d+)", path.name), path) for path in folder.glob("global_step_*"))
    return sorted((int(name[1]), path) for name, path in found if name)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is finished and has its weights: when pruning, veRL removes the actor alone."""
    return (checkpoint / MARKER).is_file() and (checkpoint / "actor").is_dir()


def repair_tracker(folder: Path) -> int:
    """Make veRL's tracker name the last whole checkpoint, or remove the tracker, and return the step, 0 for none.

    Prints what it had to repair.
    """
    tracker, step = folder / TRACKER, last_whole_step(folder)
    tracked = tracker.read_text() if tracker.is_file() else ""
    if step == 0:
        tracker.unlink(missing_ok=True)
    elif tracked != str(step):
        write_atomically(tracker, str(step))
    if tracked != (str(step) if step else ""):
        print(f"{tracker} named {tracked or 'no step'!r}, which is not a whole checkpoint: resuming from step {step}")
    return step
