"""The process in which `mmupt doctor` imports: loads the plugin's entry points, and with --gpu torch and flash-attn.

Prints one line of JSON, after whatever the imported code prints. Run as a file: it pops its own folder off sys.path.
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
    """Import, and print what came of it: None for what imports, else the error."""
    sys.path.pop(0)
    # Importing veRL takes a fifth longer with it.
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
    """How many GPUs torch can use, and why none."""
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
