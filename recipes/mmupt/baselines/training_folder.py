"""The folder of one training by SFT or DPO: its layout, and when another call may continue in it."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from verl_ext.files import sha256, write_json

# What is trained: the settings, the model and the file of rows with its digest.
PARAMETERS = "parameters.json"
CHECKPOINTS = "checkpoints"
# The trained policy in Hugging Face format; exists only once it is complete.
POLICY = "model"


def record_training(
    folder: Path,
    settings: Mapping[str, Any],
    model: str,
    file: Path,
    has_begun: bool,
    ignored: Collection[str] = (),
) -> None:
    """Write what is trained into a folder, unless a training of something else has begun there.

    Args:
        folder: of the training.
        settings: of the trainer, as JSON can hold them.
        model: folder or hub name of the model that training starts from.
        file: the rows that are trained on.
        has_begun: whether the folder has a checkpoint or a policy; before that, everything may change.
        ignored: settings that do not change the policy.

    Raises:
        ValueError: the folder has a training with other settings, another model or other rows.
    """
    parameters: dict[str, Any] = {"settings": dict(settings), "model": model, "file": str(file), "sha256": sha256(file)}
    written = folder / PARAMETERS
    if has_begun and written.is_file():
        before, now = (
            {**one["settings"], "model": one["model"], "rows": one["sha256"]}
            for one in (json.loads(written.read_text()), parameters)
        )
        if changed := [name for name in now if name not in ignored and before.get(name) != now[name]]:
            raise ValueError(
                f"{folder} has a training with other settings ({', '.join(changed)}): delete the folder, or use another"
            )
    write_json(written, parameters)
