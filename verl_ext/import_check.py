"""Checks before Ray starts that the code named in a config exists and can be imported.

veRL imports most of this code in Ray workers, or only when the first response is scored. Here its files are parsed,
which runs nothing. Code from outside veRL and this plugin is then imported in a child process (`import_check_child`),
because an import may do anything. Imports no veRL.
"""

import ast
import functools
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_ext.config_defaults import SHARED_PROMPT_AGENT
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.unknown_keys import nearest

select = OmegaConf.select

# Keys with a `path` and `name` by which veRL loads an object (verl/utils/import_utils.py, load_extern_object).
REWARD_FUNCTION = "reward.custom_reward_function"
OBJECTS = ("data.custom_cls", REWARD_FUNCTION, "trainer.v1.sampler.custom_sampler")
# Keys that name a class with its module (load_class_from_fqn), and a key that names modules only.
AGENT_LOOP_KEY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
CALLBACK_KEY = "trainer.checkpoint_callback_class"
CLASSES = (AGENT_LOOP_KEY, CALLBACK_KEY)
MODULES = "actor_rollout_ref.model.external_lib"
AGENT_LOOPS_FILE = "actor_rollout_ref.rollout.agent.agent_loop_config_path"
DEFAULT_AGENT_LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"
REWARD_MANAGER = "reward.reward_manager"
REWARD_MANAGER_KEY = f"{REWARD_MANAGER}.name"
TRAINER_MODE = "trainer.v1.trainer_mode"
ADVANTAGE_ESTIMATOR = "algorithm.adv_estimator"
POLICY_LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
ENVIRONMENT = "ray_kwargs.ray_init.runtime_env"

# The names that veRL and this plugin register, apart from its rewards.
REWARD_MANAGERS = ("naive", "dapo", "gdpo", "rate_limited", "remote")
AGENT_LOOPS = ("single_turn_agent", "tool_agent", SHARED_PROMPT_AGENT)
TRAINER_MODES = ("sync", "colocate_async", "separate_async", "sync_confidence")
ADVANTAGE_ESTIMATORS = (
    *("gae", "gdpo", "gpg", "grpo", "grpo_passk", "grpo_vectorized", "opo", "optimal_token_baseline"),
    *("reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax", "rloo", "rloo_vectorized"),
    "tir_optimal_token_baseline",
)
POLICY_LOSSES = (
    *("bypass_mode", "cispo", "clip_cov", "dppo_kl", "dppo_tv", "dro", "geo_mean", "gpg", "gspo", "kl_cov", "sapo"),
    *("vanilla", "on_policy"),
)

# Settings by which Ray ships files or packages to its workers; this process cannot know what they import.
RUNTIME_ENV_CODE = ("conda", "container", "image_uri", "pip", "py_modules", "uv", "working_dir")
# Packages that are only parsed: importing them is slow, and their own tests do it.
TRUSTED = ("verl", "verl_ext")
IMPORT_SECONDS = 300


class Named(NamedTuple):
    """An object that a config names.

    Attributes:
        path_key: the key of its module or file.
        path: the module or file in the syntax of veRL's `load_module`: `pkg://MODULE`, or a path.
        name_key: the key of the object's name; equal to `path_key` if one key holds both.
        name: the object's name; None for a module alone.
    """

    path_key: str
    path: str
    name_key: str
    name: str | None


def problems_of_code(config: DictConfig) -> Iterator[str]:
    """Yield a problem for code that does not exist, cannot be imported or called, or is not registered."""
    environment = select(config, ENVIRONMENT) or {}
    if any(environment.get(key) for key in RUNTIME_ENV_CODE):
        return
    variables = {name: str(value) for name, value in (environment.get("env_vars") or {}).items()}
    search = [*filter(None, variables.get("PYTHONPATH", "").split(os.pathsep)), *sys.path]
    to_import = []
    for named in _named(config):
        trusted = named.path.removeprefix("pkg://").replace("/", ".").split(".")[0] in TRUSTED
        if (problem := _problem_of(named, search, parse_names=trusted)) is not None:
            yield problem
        elif not trusted:
            to_import.append(named)
    agent_loops = {*AGENT_LOOPS}
    if file := select(config, AGENT_LOOPS_FILE):
        try:
            loops = _agent_loops(str(file))
        except (OSError, OmegaConfBaseException, ValueError) as error:
            yield f"{AGENT_LOOPS_FILE}={file}: {error}"
        else:
            agent_loops |= {*loops}
            for name, target in loops.items():
                module, _, attribute = target.rpartition(".")
                key = f"{AGENT_LOOPS_FILE}={file}: {name}._target_"
                if problem := _problem_of(Named(key, f"pkg://{module}", key, attribute), search, parse_names=True):
                    yield problem
    yield from _problems_of_importing(config, to_import, agent_loops, variables, search)


def _named(config: DictConfig) -> Iterator[Named]:
    for key in OBJECTS:
        # veRL treats an empty path as none.
        if path := select(config, f"{key}.path"):
            yield Named(f"{key}.path", str(path), f"{key}.name", str(select(config, f"{key}.name")))
    # The name stands beside the block `module`, not in it (trainer/ppo/reward.py, resolve_reward_manager_cls).
    name = select(config, REWARD_MANAGER_KEY)
    # This plugin's rewards are registered, not in a file; `config_checks` reports that.
    if select(config, f"{REWARD_MANAGER}.source") == "importlib" and name not in REWARDS:
        key = f"{REWARD_MANAGER}.module.path"
        yield Named(key, str(select(config, key)), REWARD_MANAGER_KEY, str(name))
    for key in CLASSES:
        if fully_qualified := select(config, key):
            module, _, name = str(fully_qualified).rpartition(".")
            yield Named(key, f"pkg://{module}", key, name)
    modules = select(config, MODULES)
    for module in filter(None, [modules] if isinstance(modules, str) else modules or ()):
        yield Named(MODULES, f"pkg://{module}", MODULES, None)


def verl_folder() -> Path | None:
    """The folder of the package `verl`, found without importing it; None if it is not installed."""
    package = find_spec("verl")
    return next(map(Path, (package and package.submodule_search_locations) or ()), None)


def _agent_loops(file: str) -> dict[str, str]:
    """Read the class of each agent loop in a file; OSError if it is missing, ValueError if it is not such a list."""
    verl = verl_folder()
    # The places where veRL looks (verl/utils/import_utils.py, resolve_config_path).
    places = [Path(file), *(folder / file for folder in ((verl.parent, verl) if verl else ()))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError("there is no such file")
    entries: Any = OmegaConf.to_container(OmegaConf.load(found), resolve=True)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise ValueError("it must be a list of agent loops, each with `name` and `_target_`")
    return {entry["name"]: str(entry.get("_target_")) for entry in entries}


def _written(named: Named, of_name: bool = False) -> str:
    """The setting of the module, or of the object's name in it, as KEY=VALUE."""
    if named.path_key != named.name_key:
        return f"{named.name_key}={named.name}" if of_name else f"{named.path_key}={named.path}"
    return f"{named.path_key}={'.'.join(filter(None, (named.path.removeprefix('pkg://'), named.name)))}"


def _problem_of(named: Named, search: Sequence[str], parse_names: bool) -> str | None:
    """The problem that parsing the file shows, if any. Without `parse_names`, names are left to the import: code may
    bind them dynamically."""
    path, name, where = named.path, named.name, _written(named)
    if path.startswith("pkg://"):
        spec = _spec(path.removeprefix("pkg://").replace("/", "."), search)
        if spec is None:
            return f"{where}: there is no such module"
        file = Path(spec.origin) if spec.origin else None
    else:
        file = Path(path.removeprefix("file://"))
        if not file.is_file():
            return f"{where}: there is no such file"
    if file is None or file.suffix != ".py" or name is None:
        return None
    try:
        defined = _names_in(ast.parse(file.read_bytes(), str(file)))
    except SyntaxError as error:
        return f"{where}: it is not Python: {error}"
    if not parse_names or name in defined or "*" in defined:
        return None
    return f"{_written(named, of_name=True)}: {file} does not define it{nearest(name, defined)}"


def _spec(module: str, search: Sequence[str]) -> ModuleSpec | None:
    """Find a module without importing the packages that contain it."""
    top, *rest = module.split(".")
    try:
        spec = PathFinder.find_spec(top, search) or find_spec(top)
    except (ImportError, ValueError):
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _names_in(module: ast.Module) -> set[str]:
    """The names that a module binds anywhere; `*` if it imports all names of another module."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _problems_of_importing(
    config: DictConfig,
    to_import: Sequence[Named],
    agent_loops: Collection[str],
    variables: dict[str, str],
    search: Sequence[str],
) -> Iterator[str]:
    """Yield the problems of importing code and of registered names, both looked up in a child process."""
    manager = select(config, REWARD_MANAGER_KEY)
    managers = (*REWARD_MANAGERS, *REWARDS)
    looked_up: dict[str, tuple[str, Collection[str]]] = {
        "agent_loops": (DEFAULT_AGENT_LOOP, agent_loops),
        "advantage_estimators": (ADVANTAGE_ESTIMATOR, ADVANTAGE_ESTIMATORS),
        "policy_losses": (POLICY_LOSS, POLICY_LOSSES),
    }
    if select(config, f"{REWARD_MANAGER}.source") in ("register", None):
        looked_up["reward_managers"] = (REWARD_MANAGER_KEY, managers)
    if select(config, "trainer.use_v1"):
        looked_up["trainer_modes"] = (TRAINER_MODE, TRAINER_MODES)
    # Imported code may register further names.
    unknown = {
        registry: (key, name, known)
        for registry, (key, known) in looked_up.items()
        if (name := select(config, key)) is not None and name not in known
    }
    if not (to_import or unknown):
        return
    arguments = [
        *("data_source", "solution_str", "ground_truth", "extra_info"),
        *(select(config, f"{REWARD_FUNCTION}.reward_kwargs") or {}),
    ]
    # Under this plugin's rewards the reward model is a judge, which the function that grades validation does not get.
    if select(config, "reward.reward_model.enable") and manager not in REWARDS:
        arguments += ["reward_router_address", "reward_model_tokenizer"]
    request = {
        "objects": [(named.path, named.name) for named in to_import],
        "registries": list(unknown),
        # Known managers call the function like veRL's own (reward_loop/reward_manager/naive.py).
        "called": [named.path_key == f"{REWARD_FUNCTION}.path" and manager in managers for named in to_import],
        "arguments": arguments,
    }
    answers, failure = _ask_child(json.dumps(request), json.dumps(variables), os.pathsep.join(search))
    for named, answer in zip(to_import, answers, strict=False):
        if answer is not None:
            part, problem = answer
            yield f"{_written(named, of_name=part == 'name')}: {problem}"
    asked = [*map(_written, to_import), *(f"{key}={name}" for key, name, _ in unknown.values())]
    if len(answers) < len(asked):
        # The child has tried nothing after this.
        yield f"{asked[len(answers)]}: {failure}"
    for (key, name, known), names in zip(unknown.values(), answers[len(to_import) :], strict=False):
        if name not in names:
            registered = sorted({*known, *names})
            yield (
                f"{key}={name}: none is registered under this name{nearest(name, registered) or '.'} "
                f"Known: {', '.join(registered)}"
            )


@functools.cache
def _ask_child(request: str, variables: str, search: str) -> tuple[list[Any], str]:
    """Return the child's answers and why it stopped answering; cached, because veRL validates a config twice."""
    environment = {**os.environ, **json.loads(variables), "PYTHONPATH": search}
    command = [sys.executable, "-m", "verl_ext.import_check_child"]
    try:
        child = subprocess.run(
            command, input=request, env=environment, capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
        output, errors = child.stdout, child.stderr.strip()
        failure = f"importing it ends the process ({child.returncode}): {errors.splitlines()[-1] if errors else ''}"
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode()
        failure = f"importing it takes more than {IMPORT_SECONDS} seconds"
    return [json.loads(line) for line in output.splitlines()], failure
