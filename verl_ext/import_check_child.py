"""The child process of `import_check`: imports the requested code and reports each outcome as a line of JSON."""

import importlib
import importlib.util
import inspect
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from verl_ext.unknown_keys import nearest

# Where veRL registers objects by name; importing the packages around these modules registers its own.
REGISTRIES = {
    "reward_managers": ("verl.experimental.reward_loop.reward_manager.registry", "REWARD_MANAGER"),
    "agent_loops": ("verl.experimental.agent_loop.agent_loop", "_agent_loop_registry"),
    "trainer_modes": ("verl.trainer.ppo.v1.trainer_base", "TRAINER_REGISTRY"),
    "advantage_estimators": ("verl.trainer.ppo.core_algos", "ADV_ESTIMATOR_REGISTRY"),
    "policy_losses": ("verl.trainer.ppo.core_algos", "POLICY_LOSS_REGISTRY"),
}


def main() -> None:
    """Answer the request on standard input, one line per object and registry; the imported code prints to stderr."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if request["registries"]:
        # veRL's plugins and the modules in VERL_USE_EXTERNAL_MODULES may register names, too.
        importlib.import_module("verl")
    for (path, name), called in zip(request["objects"], request["called"], strict=True):
        problem = _problem_of(path, name, request["arguments"] if called else None)
        print(json.dumps(problem), file=answers)
    for registry in request["registries"]:
        module, name = REGISTRIES[registry]
        names = getattr(importlib.import_module(module), name)
        print(json.dumps(sorted(names)), file=answers)


def _problem_of(path: str, name: str | None, arguments: list[str] | None) -> tuple[str, str] | None:
    """Which of "path" and "name" is wrong, and why; None if both are right."""
    try:
        module = _load(path)
    except Exception as error:
        return "path", f"importing it raises {type(error).__name__}: {error}"
    if name is None:
        return None
    try:
        loaded = getattr(module, name)
    except AttributeError:
        where = getattr(module, "__file__", None) or module.__name__
        return "name", f"{where} does not define it{nearest(name, dir(module))}"
    problem = None if arguments is None else _problem_of_call(loaded, arguments)
    return None if problem is None else ("name", problem)


def _load(path: str) -> ModuleType:
    """Import as veRL does (verl/utils/import_utils.py, load_module)."""
    if path.startswith("pkg://"):
        return importlib.import_module(path.removeprefix("pkg://").replace("/", "."))
    file = Path(path.removeprefix("file://"))
    spec = importlib.util.spec_from_file_location(f"custom_module_{abs(hash(file))}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _problem_of_call(function: Any, arguments: list[str]) -> str | None:
    if not callable(function):
        return "it is not a function"
    try:
        signature = inspect.signature(function)
    except ValueError:
        # Functions written in C may have no signature.
        return None
    try:
        signature.bind(**dict.fromkeys(arguments))
    except TypeError as error:
        return f"it is called as {', '.join(f'{name}=' for name in arguments)}, and {error}"
    return None


if __name__ == "__main__":
    main()
