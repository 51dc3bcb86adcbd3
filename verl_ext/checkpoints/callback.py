"""veRL's checkpoint callback, `trainer.checkpoint_callback_class`: marks finished checkpoints and removes old ones."""

from pathlib import Path
from typing import Any

from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from verl_ext.checkpoints import mark_whole, prune


class CheckpointMarker(CheckpointCallback):
    """Marks a checkpoint once all its files are written, then removes those beyond `trainer.max_actor_ckpt_to_keep`.

    Asynchronous saves, which are not finished by then, are refused.
    """

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **kwargs: Any
    ) -> None:
        """As veRL documents it; ValueError for an asynchronous save. Without a trainer nothing is removed."""
        if async_save:
            raise ValueError(
                "a checkpoint saved asynchronously cannot be marked whole: set actor.checkpoint.async_save=False"
            )
        checkpoint = Path(checkpoint_dir)
        mark_whole(checkpoint)
        if trainer is not None:
            prune(checkpoint.parent, trainer.config.trainer.max_actor_ckpt_to_keep)
