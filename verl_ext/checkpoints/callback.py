"""veRL's checkpoint callback, `trainer.checkpoint_callback_class`: marks finished checkpoints and removes old ones."""

from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from verl_ext.checkpoints import mark_whole, prune


class CheckpointMarker(CheckpointCallback):
    """Marks a checkpoint as whole, then removes checkpoints beyond `trainer.max_actor_ckpt_to_keep`.

    Refuses asynchronous saves, which are not finished when veRL calls it.
    """

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """Mark the checkpoint and, with a trainer, remove old ones; ValueError for an asynchronous save."""
        if async_save:
            raise ValueError(
                "a checkpoint saved asynchronously cannot be marked whole: set actor.checkpoint.async_save=False"
            )
        checkpoint = Path(checkpoint_dir)
        mark_whole(checkpoint)
        if trainer is not None:
            prune(checkpoint.parent, trainer.config.trainer.max_actor_ckpt_to_keep)
