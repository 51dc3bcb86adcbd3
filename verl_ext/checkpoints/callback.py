"""veRL's checkpoint callback that marks finished checkpoints, chosen by `trainer.checkpoint_callback_class`."""

from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from verl_ext.checkpoints import mark_whole


class MarkWhole(CheckpointCallback):
    """Marks a checkpoint once all its files are written; asynchronous saves, which still write then, are refused."""

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """As veRL documents it; ValueError for an asynchronous save."""
        if async_save:
            raise ValueError(
                "a checkpoint saved asynchronously cannot be marked whole: set actor.checkpoint.async_save=False"
            )
        mark_whole(Path(checkpoint_dir))
