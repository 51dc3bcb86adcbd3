"""Patch `PPOTrainer._init_dataloader`: rows that cannot be graded end the run before any model is loaded.

Rows of files elsewhere (hdfs://) and of one's own dataset exist only now. veRL has no hook after its datasets are made,
and it goes on after an error in the grading of a validation row. Remove when veRL offers such a hook.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[[Any], None], trainer: Any) -> None:
    """Make the datasets as veRL does, then check their rows."""
    # Imported lazily, as in `validate_config`.
    from verl_ext.config_checks import check_rows

    original(trainer)
    check_rows(trainer.config, {"data.val_files": trainer.val_dataset, "data.train_files": trainer.train_dataset})
