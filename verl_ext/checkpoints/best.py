"""The weights of the best policies of a run, kept out of reach of veRL, which removes old checkpoints. Imports no veRL.

They lie in `best/global_step_N` beside veRL's own `global_step_N`, as hard links, so that they take space only once
veRL has removed the original. Moments of the optimizer are not kept: such a checkpoint is for export, not to resume
from.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from verl_ext.checkpoints import checkpoint_of, is_whole
from verl_ext.files import replacing

FOLDER = "best"
# What only a run that goes on needs.
LEFT_OUT = ("optim_*", "extra_state_*", "data.pt", "transfer_queue")


def kept_checkpoint(checkpoints: Path, step: int) -> Path | None:
    """Return the checkpoint of a step that has its weights whole, the kept one or veRL's; None where there is none."""
    both = (checkpoint_of(folder, step) for folder in (checkpoints / FOLDER, checkpoints))
    return next(filter(is_whole, both), None)


def keep(checkpoints: Path, steps: Collection[int]) -> None:
    """Keep the checkpoints of these steps, those that there are, and no others."""
    folder = checkpoints / FOLDER
    for step in steps:
        target, source = checkpoint_of(folder, step), kept_checkpoint(checkpoints, step)
        if source is not None and source != target:
            with replacing(target) as temporary:
                shutil.copytree(source, temporary, copy_function=link_or_copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    wanted = {checkpoint_of(folder, step) for step in steps}
    for other in set(folder.glob("*")) - wanted:
        shutil.rmtree(other)


def link_or_copy(source: str, target: str) -> None:
    """Make `target` the same file as `source`; a `copy_function` of `shutil.copytree`."""
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has hard links.
        shutil.copy2(source, target)
