"""The folder of an SFT or DPO training: its layout, and the check that another call may continue in it."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from verl_ext.files import sha256, write_json

# Settings, initial model, and file of rows with its digest.
PARAMETERS = "parameters.json"
CHECKPOINTS = "checkpoints"
# The trained policy in Hugging Face format; exists only when it is complete.
POLICY = "model"


def record_training(
    folder: Path,
    settings: Mapping[str, Any],
    model: str,
    file: Path,
    has_begun: bool,
    ignored: Collection[str] = (),
) -> None:
    """Record the parameters of a training in its folder, unless a different training has begun there.

    Args:
        folder: the folder of the training.
        settings: the trainer's settings, JSON-serializable.
        model: folder or hub name of the initial model.
        file: the rows to train on.
        has_begun: whether the folder has a checkpoint or a policy; before that, everything may change.
        ignored: settings that do not change the policy.

    Raises:
        ValueError: the folder holds a training with other settings, another model or other rows.
    """
    parameters: dict[str, Any] = {"settings": dict(settings), "model": model, "file": str(file), "sha256": sha256(file)}
    written = folder / PARAMETERS
    if has_begun and written.is_file():
        recorded = json.loads(written.read_text())
        if _from_rows(recorded) == _from_rows(parameters):
            # The model was moved together with the rows.
            recorded["model"] = model
        before, now = (
            {**training["settings"], "model": training["model"], "rows": training["sha256"]}
            for training in (recorded, parameters)
        )
        if changed := [name for name in now if name not in ignored and before.get(name) != now[name]]:
            raise ValueError(
                f"{folder} holds a training with other settings ({', '.join(changed)}): delete it or use another folder"
            )
    write_json(written, parameters)


def _from_rows(training: Mapping[str, Any]) -> str:
    """The path of the initial model, relative to the folder of the rows if it is absolute."""
    model = training["model"]
    return os.path.relpath(model, Path(training["file"]).parent) if os.path.isabs(model) else model
