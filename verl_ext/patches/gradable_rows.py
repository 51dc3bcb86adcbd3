"""Patch `PPOTrainer._init_dataloader`: rows that cannot be graded end the run before any model is loaded.

Rows of remote files (hdfs://) and of a user's own dataset class exist only at this point. veRL has no hook after it
builds its datasets, and it continues after an error in the grading of a validation row. Remove when veRL offers such a
hook.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[[Any], None], trainer: Any) -> None:
    """Build the datasets as veRL does, then check their rows."""
    # Imported lazily, as in `validate_config`.
    from verl_ext.config_checks import check_rows

    original(trainer)
    check_rows(trainer.config, {"data.val_files": trainer.val_dataset, "data.train_files": trainer.train_dataset})
