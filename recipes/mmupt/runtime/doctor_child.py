"""Subprocess of `mmupt doctor` that imports the plugin's entry points and, with --gpu, torch and flash-attn.

Prints one line of JSON after any output of the imported code. Must be run as a file, because it removes its own folder
from sys.path.
"""

import gc
import importlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

DISTRIBUTION = "verl-mmupt"
PLUGIN_GROUPS = ("verl.plugins", "vllm.general_plugins")


def main() -> None:
    """Import everything, and print the error of each import, or None."""
    sys.path.pop(0)
    # Garbage collection makes importing veRL take a fifth longer.
    gc.disable()
    answer: dict[str, Any] = {
        "entry_points": {
            f"{group}:{entry.name}": _error_of(entry.load)
            for group in PLUGIN_GROUPS
            for entry in entry_points(group=group)
            if entry.dist is not None and entry.dist.name == DISTRIBUTION
        }
    }
    if "--gpu" in sys.argv:
        answer["torch"] = _gpus_of_torch()
        answer["flash_attn"] = _error_of(lambda: importlib.import_module("flash_attn"))
    print(json.dumps(answer))


def _gpus_of_torch() -> dict[str, Any]:
    """Count the GPUs that torch can use; with the error, if CUDA does not start."""
    try:
        torch = importlib.import_module("torch")
        torch.cuda.init()
        return {"gpus": torch.cuda.device_count(), "error": None}
    except Exception as error:
        return {"gpus": 0, "error": f"{type(error).__name__}: {error}"}


def _error_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    main()
