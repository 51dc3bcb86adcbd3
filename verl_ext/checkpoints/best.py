"""The weights of the best policies of a run, kept out of reach of veRL, which removes old checkpoints. Imports no veRL.

They are in `best/global_step_N` beside veRL's own `global_step_N`, as hard links, which take space only once veRL has
removed the original. Optimizer moments are not kept: such a checkpoint is for export, not for resuming.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from verl_ext.checkpoints import checkpoint_of, is_whole
from verl_ext.files import replacing

FOLDER = "best"
# Needed only to resume.
LEFT_OUT = ("optim_*", "extra_state_*", "data.pt", "transfer_queue")


def kept_checkpoint(checkpoints: Path, step: int) -> Path | None:
    """Return the whole checkpoint of a step, the kept one or veRL's; None if there is none."""
    both = (checkpoint_of(folder, step) for folder in (checkpoints / FOLDER, checkpoints))
    return next(filter(is_whole, both), None)


def keep(checkpoints: Path, steps: Collection[int]) -> None:
    """Keep the checkpoints of these steps that exist, and no others."""
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
