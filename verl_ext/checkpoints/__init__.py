"""Finds whole checkpoints and repairs the tracker file that veRL resumes from. Imports no veRL.

veRL saves a checkpoint, then rewrites its tracker in place. A kill during the save leaves a checkpoint with missing
files, and a kill during the rewrite leaves an empty tracker. `CheckpointMarker` in `callback.py` therefore marks
finished checkpoints.
"""

import os
import re
import shutil
from pathlib import Path

from verl_ext.files import write_atomically

TRACKER = "latest_checkpointed_iteration.txt"
MARKER = "whole"


def checkpoint_of(folder: Path, step: int) -> Path:
    """Return the checkpoint folder of a step in veRL's layout."""
    return folder / f"global_step_{step}"


def mark_whole(checkpoint: Path) -> None:
    """Mark a finished checkpoint after flushing its files to disk."""
    os.sync()
    (checkpoint / MARKER).touch()


def whole_steps(folder: Path) -> list[int]:
    """Return the steps of all whole checkpoints in ascending order."""
    return [step for step, checkpoint in _steps(folder) if is_whole(checkpoint)]


def last_whole_step(folder: Path) -> int:
    """Return the step of the last whole checkpoint, 0 if there is none."""
    return max(whole_steps(folder), default=0)


def prune(folder: Path, limit: int | None) -> None:
    """Remove all checkpoints before the last `limit` whole ones; nothing if the limit is None or below 1.

    veRL removes only the actors of checkpoints that it has saved since its start. This function also removes
    checkpoints of earlier starts and incomplete remains of older checkpoints, but not the weights that `best` keeps.
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
    """Return step and folder of all checkpoints, whole or not, in ascending order."""
    matches = ((re.fullmatch(r"global_step_(\d+)", path.name), path) for path in folder.glob("global_step_*"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is finished and still has its weights: veRL prunes a checkpoint by removing its actor."""
    return (checkpoint / MARKER).is_file() and (checkpoint / "actor").is_dir()


def repair_tracker(folder: Path) -> int:
    """Make veRL's tracker name the last whole checkpoint, whose step is returned, and print any repair.

    Without a whole checkpoint, remove the tracker and return 0.
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
