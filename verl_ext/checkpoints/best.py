"""Keeps the weights of the best policies of a run when veRL removes old checkpoints. Imports no veRL.

`best/global_step_N`, beside veRL's own `global_step_N`, holds hard links, which take space only after veRL has removed
the original. Optimizer moments are left out, so these checkpoints are for export, not for resuming.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from verl_ext.checkpoints import checkpoint_of, is_whole
from verl_ext.files import replacing

FOLDER = "best"
# Files and folders needed only for resuming.
LEFT_OUT = ("optim_*", "extra_state_*", "data.pt", "transfer_queue")


def kept_checkpoint(checkpoints: Path, step: int) -> Path | None:
    """Return the whole checkpoint of a step, from `best` or else veRL's; None if there is none."""
    candidates = (checkpoint_of(folder, step) for folder in (checkpoints / FOLDER, checkpoints))
    return next(filter(is_whole, candidates), None)


def keep(checkpoints: Path, steps: Collection[int]) -> None:
    """Keep the existing checkpoints of these steps and remove all other kept checkpoints."""
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
    """Hard-link `target` to `source`, or copy where that fails; a `copy_function` for `shutil.copytree`."""
    try:
        os.link(source, target)
    except OSError:
        # Some file systems do not support hard links.
        shutil.copy2(source, target)
