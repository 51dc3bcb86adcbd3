"""Composes and checks recipes. Does not start anything or import veRL.

A recipe is a YAML file in `config/`, which Hydra composes over `base.yaml` and veRL's `ppo_trainer`. It chooses an
option, `config/GROUP/OPTION.yaml`, of each config group; the override `GROUP=OPTION` replaces it. A second folder with
the same layout can add recipes and options (`use_config_dir`).
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmupt import recipe_files
from mmupt.baseline_settings import read_baseline
from mmupt.config_values import problems_of_values
from mmupt.datasets import data_sets
from mmupt.recipe_files import (
    CONFIG_DIR_VARIABLE,
    FOUNDATIONS,
    GROUPS,
    config_file,
    config_files,
    config_folders,
    options,
    recipes,
)
from mmupt_data.prepare import FOLDER
from verl_ext.config_checks import problems_of_config
from verl_ext.config_defaults import complete_config
from verl_ext.files import file_list
from verl_ext.import_check import verl_folder
from verl_ext.unknown_keys import is_whole, nearest

# Prefix of paths in recipes that refer to this package; such paths exist in a checkout only.
PACKAGE_IN_CHECKOUT = "recipes/mmupt/"

# Config groups whose options, if they are not the recipe's own, become part of the run's name and folder.
NAMING_GROUPS = ("method", "dataset", "model")

# Keys that a recipe may set differently from its method, because they do not affect results.
DESCRIPTIVE_KEYS = ("mmupt.paper_method", "mmupt.report_note")

# Any key is allowed below these keys, which are passed on to other libraries.
OPEN_KEYS = (
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs.vllm",
    "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs",
    "data.apply_chat_template_kwargs",
    "data.mm_processor_kwargs",
    "ray_kwargs.ray_init.runtime_env.env_vars",
)

MAX_MODEL_LEN = "actor_rollout_ref.rollout.max_model_len"

# Keys that are filled in after Hydra has composed a recipe, and their source.
FILLED_IN = {
    "mmupt.name": "the recipe, and the options of method, dataset and model that are not the recipe's own",
    "mmupt.datasets": "this project's data sets among the files that the recipe names",
    MAX_MODEL_LEN: "data.max_prompt_length + data.max_response_length",
}


class RecipeError(Exception):
    """A recipe or override cannot be run; the message names the file or key, and the fix."""


def use_config_dir(folder: Path | None) -> None:
    """Add the recipes and options of a folder to ours, in this process and its children; None adds none.

    Raises:
        RecipeError: the folder does not exist, or a file in it has the name of one of our files or veRL's.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise RecipeError(f"--config-dir: there is no folder {folder}")
    for file in config_files(folder):
        for other in (recipe_files.CONFIG_FOLDER, _verl_configs()):
            if (other / file.relative_to(folder)).is_file():
                raise RecipeError(f"--config-dir: {file} has the name of {other / file.relative_to(folder)}: rename it")
    os.environ[CONFIG_DIR_VARIABLE] = str(folder.resolve())


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """Compose a recipe with Hydra overrides; return its config and the chosen option of every config group.

    Raises:
        RecipeError: as `compose_recipe`, or the recipe has problems; the message lists all of them.
    """
    config, choices, problems = compose_recipe(recipe, overrides)
    refuse(f"recipe {recipe}: {problem}" for problem in problems)
    return config, choices


def compose_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str], list[str]]:
    """Compose a recipe as `load_recipe` does, and return its problems instead of raising them.

    Problems are keys in the recipe's files or the overrides that neither veRL nor this project knows, settings under
    which the vote or another method would be wrong, and settings of the recipe that undo an option given on the command
    line. Overrides of unknown keys are left out of the config.

    Raises:
        RecipeError: the recipe or an option does not exist, or Hydra refuses to compose it.
    """
    known_recipes = recipes()
    if recipe not in known_recipes:
        hint = "" if CONFIG_DIR_VARIABLE in os.environ else "; --config-dir names a folder with your own"
        raise RecipeError(f"there is no recipe {recipe!r}; known recipes: {', '.join(known_recipes)}{hint}")
    parsed = _parsed(overrides, RecipeError)
    own = _own_choices(recipe)
    given = _given_choices(recipe, own, parsed)
    known_keys = _known_keys()
    problems = [
        f"{_shown(file)}: {problem}"
        for file in _files_of(recipe)
        for key in _keys_of_file(file)
        if (problem := _problem_of_key(key, known_keys)) is not None
    ]
    kept, of_baseline = [], []
    for override in parsed:
        key, line = override.key_or_group, str(override.input_line)
        if override.is_add() or override.is_force_add() or any((folder / key).is_dir() for folder in config_folders()):
            kept.append(line)
        elif (problem := _problem_of_key(key, known_keys, GROUPS)) is not None:
            problems.append(f"override {line}: {problem}")
        elif key.startswith("mmupt.baseline.") and not override.is_delete():
            # GRPO has no such block, so Hydra would refuse the key. Add it, and refuse it below with the fix.
            kept.append(f"++{line}")
            of_baseline.append(line)
        else:
            kept.append(line)
    config, choices = _compose(recipe, kept)
    if "mmupt" not in config:
        raise RecipeError(f"recipe {recipe} builds on no other: its defaults must name base or a recipe")
    if OmegaConf.is_missing(config.mmupt, "name"):
        changed = [choices[group] for group in NAMING_GROUPS if group in given and given[group] != own.get(group)]
        config.mmupt.name = "-".join([recipe, *changed])
    elif Path(str(config.mmupt.name)).name != str(config.mmupt.name):
        problems.append(f"mmupt.name={config.mmupt.name} must be the name of a folder, without /")
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"recipe {recipe}: {error.full_key}: {str(error).splitlines()[0]}") from error
    base: Any = OmegaConf.to_container(_base(recipe_files.CONFIG_FOLDER))
    if wrong := list(problems_of_values(resolved, base)):
        # The checks below compute with these values.
        refuse([*problems, *wrong])
    config.actor_rollout_ref.model.path = _path_in_package(config.actor_rollout_ref.model.path)
    if config.mmupt.datasets is None:
        config.mmupt.datasets = _data_sets_named(config)
    rollout = config.actor_rollout_ref.rollout
    if rollout.max_model_len is None:
        rollout.max_model_len = config.data.max_prompt_length + config.data.max_response_length
    if config.mmupt.baseline.method is None:
        problems += [
            f"override {line}: method={choices.get('method')} is GRPO, which has no such key: choose a baseline"
            for line in of_baseline
        ]
    problems += _undone(config, given, {override.key_or_group for override in parsed})
    # Checked before defaults are filled in, so that messages show the values as written.
    problems += problems_of_config(config)
    complete_config(config)
    try:
        read_baseline(config)
    except ValueError as error:
        problems.append(str(error))
    return config, choices, problems


def _path_in_package(path: str) -> str:
    """Make a path into this package valid outside a checkout; other paths are returned unchanged."""
    if not str(path).startswith(PACKAGE_IN_CHECKOUT) or Path(path).exists():
        return path
    return str(recipe_files.CONFIG_FOLDER.parent / path.removeprefix(PACKAGE_IN_CHECKOUT))


def _own_choices(recipe: str) -> dict[str, str]:
    """Return the option of each config group that a recipe, or a recipe it builds on, chooses."""
    choices: dict[str, str] = {}
    for file in _lineage(config_file(recipe)):
        for entry in _defaults_of(file):
            if isinstance(entry, dict):
                # A key is "model", "override model" or "/model".
                choices |= {key.split()[-1].lstrip("/"): option for key, option in entry.items()}
        _check_options(f"recipe {file.stem}: ", choices)
    return choices


def _given_choices(recipe: str, own: Mapping[str, str], overrides: Iterable[Override]) -> dict[str, str]:
    """Return the option of each config group that the overrides choose."""
    given = {}
    for override in overrides:
        group = override.key_or_group
        if group in GROUPS and not override.is_delete():
            given[group] = str(override.value())
            if group not in own and not (override.is_add() or override.is_force_add()):
                raise RecipeError(f"recipe {recipe} chooses no {group} by itself: give +{override.input_line}")
    _check_options("", given)
    return given


def _check_options(prefix: str, choices: Mapping[str, str]) -> None:
    for group in GROUPS:
        if group in choices and choices[group] not in (known := options(group)):
            raise RecipeError(
                f"{prefix}there is no {group} {choices[group]!r}{nearest(choices[group], known) or '.'} "
                f"Known: {', '.join(known)}"
            )


def _data_sets_named(config: DictConfig) -> list[str]:
    """Return this project's data sets among the training, validation and evaluation files of a config."""
    files = [config.data.train_files, config.data.val_files, config.mmupt.evaluation_files]
    parents = [Path(file).parent for listed in files for file in file_list(listed)]
    names = dict.fromkeys(folder.name for folder in parents if folder.parent == FOLDER)
    return [name for name in names if name in data_sets()] if names else []


def _undone(config: DictConfig, given: Mapping[str, str], overridden: set[str]) -> Iterator[str]:
    """Yield the settings of options chosen on the command line that the recipe itself overwrites."""
    groups = [group for group in NAMING_GROUPS if group in given]
    # Compare values as written, with interpolations.
    composed = OmegaConf.to_container(config, resolve=False) if groups else None
    for group in groups:
        option = _load(config_file(f"{group}/{given[group]}"))
        assert isinstance(option, DictConfig)
        written = OmegaConf.to_container(option, resolve=False)
        for key in _keys(option):
            if key.split(".")[0] == "defaults" or key in DESCRIPTIVE_KEYS:
                continue
            parts = key.split(".")
            if overridden & {".".join(parts[:end]) for end in range(1, len(parts) + 1)}:
                continue
            wanted, found = (_value(content, parts) for content in (written, composed))
            if not isinstance(wanted, dict) and wanted != found:
                yield (
                    f"{group}={given[group]} sets {key} to {wanted}, and the recipe itself to {found}: give {key}=... "
                    "for the value that you mean"
                )


def _value(content: Any, parts: Sequence[str]) -> Any:
    """Return the value of a key in nested dicts; None if it is not set."""
    for part in parts:
        content = content[part] if isinstance(content, dict) else None
    return content


def refuse(problems: Iterable[str]) -> None:
    """Raise a RecipeError that lists all problems, if there are any."""
    if found := list(problems):
        raise RecipeError(found[0] if len(found) == 1 else "\n  ".join([f"{len(found)} problems:", *found]))


def compose_entry(folder: Path, name: str, overrides: Sequence[str], error: type[Exception]) -> DictConfig:
    """Compose `folder/name.yaml`, the config of a command that takes no recipe.

    Raises:
        error: an unknown key or option, a `limit` that is not a number of rows, or anything else that Hydra refuses.
    """
    parsed = _parsed(overrides, error)
    try:
        with initialize_config_dir(str(folder), version_base=None):
            groups = {group.name: sorted(file.stem for file in group.glob("*.yaml")) for group in folder.iterdir()}
            known = [*map(str, compose(name)), *(group for group, names in groups.items() if names)]
            for override in parsed:
                key, names = re.split(r"[.@]", override.key_or_group)[0], groups.get(override.key_or_group)
                if key not in known:
                    hint = nearest(key, known) or "."
                    raise error(f"there is no key {key!r}{hint} The keys are documented in {folder}")
                if names and not override.is_delete() and (option := str(override.value())) not in names:
                    raise error(f"there is no {key} {option!r}; known: {', '.join(names)}")
            config = compose(name, overrides=list(overrides))
    except HydraException as refused:
        raise error(f"{refused}\nThe keys are documented in {folder}") from refused
    if config.limit is not None and not is_whole(config.limit, 1):
        raise error(f"limit must be null or a whole number of at least 1, not {config.limit!r}")
    return config


def require_values(config: DictConfig, error: type[Exception]) -> None:
    """Raise `error` if a required key, such as `model` or `data`, has no value."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise error(f"give {' and '.join(f'{key}=...' for key in missing)}")


def _parsed(overrides: Sequence[str], error: type[Exception]) -> list[Override]:
    """Parse overrides; raise `error` for an invalid override, showing how to quote its value as text."""
    parsed = []
    for text in overrides:
        key, is_assignment, value = text.partition("=")
        quoted = f"quote the value, {as_override(key, value)}, and all of it once more for the shell"
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as refused:
            fix = quoted if is_assignment else "an override must be key=value"
            raise error(f"override {text}: {fix} ({str(refused).splitlines()[0]})") from refused
        if override.is_sweep_override():
            raise error(f"override {text} has several values: give a list, {key}=[{value}], or {quoted}")
        parsed.append(override)
    return parsed


def as_override(key: str, value: Any) -> str:
    """Write a Hydra override of a key with a string, number, bool, None, or a list or dict of these."""
    return f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_quoted(one)}' for name, one in value.items())}}}"
    if isinstance(value, str):
        # Hydra reads a backslash as an escape only before a quote; backslashes before a quote are doubled.
        escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
        return f"'{escaped}'"
    return str(value)


@cache
def _base(folder: Path) -> DictConfig:
    """Compose the config without any recipe. Cached by `folder` (CONFIG_FOLDER), because composing takes a second."""
    return _compose("base", [])[0]


def _known_keys() -> frozenset[str]:
    """Return the keys of base and baseline."""
    folder = recipe_files.CONFIG_FOLDER
    return frozenset((*_keys(_base(folder)), *_keys_of_file(folder / "baseline.yaml")))


def search_folders(name: str) -> list[Path]:
    """Return the folders that Hydra searches for the files of a recipe: the recipe's own first, veRL's last."""
    first = config_file(name).parent
    return [first, *(folder for folder in config_folders() if folder != first), _verl_configs()]


def search_path(folders: Iterable[Path]) -> str:
    """Return the override that makes Hydra search additional folders."""
    return as_override("hydra.searchpath", [f"file://{folder}" for folder in folders])


def _compose(name: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    # Hydra reads the primary file from the first folder only, and all other files from any folder.
    first, *others = search_folders(name)
    try:
        with initialize_config_dir(str(first), version_base=None):
            config = compose(name, overrides=[*overrides, search_path(others)], return_hydra_config=True)
    except HydraException as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    choices = {group: option for group, option in config.hydra.runtime.choices.items() if "@" not in group}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config, choices


def _verl_configs() -> Path:
    if (verl := verl_folder()) is None:
        raise RecipeError("veRL is not installed: run `make setup`")
    return verl / "trainer" / "config"


def _shown(file: Path) -> Path:
    """Show our files relative to `config/`, and other files with their full path."""
    return file.relative_to(recipe_files.CONFIG_FOLDER) if file.is_relative_to(recipe_files.CONFIG_FOLDER) else file


def _files_of(recipe: str) -> list[Path]:
    """Return the recipe's file, the recipes that it builds on, and all options of the config groups."""
    files = [file for folder in config_folders() for file in config_files(folder) if file.parent != folder]
    return list(dict.fromkeys((*reversed(_lineage(config_file(recipe))), *files)))


def _load(file: Path) -> Any:
    try:
        return OmegaConf.load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{_shown(file)} is not YAML: {' '.join(str(error).split())}") from error


def _lineage(file: Path, heirs: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files of a recipe and of the recipes it builds on, ancestors first.

    `heirs` are the files that led here; a recipe that builds on itself is a RecipeError.
    """
    if file in heirs:
        loop = " -> ".join(one.stem for one in (*heirs[heirs.index(file) :], file))
        raise RecipeError(f"{_shown(file)} builds on itself ({loop}): remove one of these names from the defaults")
    names = [entry for entry in _defaults_of(file) if isinstance(entry, str) and entry not in FOUNDATIONS]
    parents = [parent for name in names if (parent := config_file(name)).is_file()]
    return [*(one for parent in parents for one in _lineage(parent, (*heirs, file))), file]


def _defaults_of(file: Path) -> list[Any]:
    """Return the defaults list of a file: names, and dicts from a group to its option."""
    # Not resolved: Hydra itself interpolates ${method} in this list.
    content: Any = OmegaConf.to_container(_load(file), resolve=False)
    return list(content.get("defaults") or []) if isinstance(content, dict) else []


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in node:
        key = f"{prefix}{name!s}"
        yield key
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _keys(child, f"{key}.")


def _keys_of_file(file: Path) -> Iterator[str]:
    content = _load(file)
    if not isinstance(content, DictConfig):
        raise RecipeError(f"{file} holds no keys")
    return (key for key in _keys(content) if key.split(".")[0] != "defaults")


def _problem_of_key(key: str, known: frozenset[str], groups: Iterable[str] = ()) -> str | None:
    if key in known or any(key.startswith(f"{open_key}.") for open_key in OPEN_KEYS):
        return None
    # GRPO has no critic, so its keys are never what was meant.
    used = (name for name in known if not name.startswith("critic."))
    return f"there is no key {key!r}{nearest(key, [*used, *groups])}"
