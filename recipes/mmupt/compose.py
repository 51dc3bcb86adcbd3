"""Recipes as files: finding, composing and checking them. Starts nothing and imports no veRL.

A recipe is a YAML file in `config/`. It is composed by Hydra over `base.yaml` and veRL's own `ppo_trainer`.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mmupt.baseline_settings import read_baseline
from verl_ext.config_checks import problems_of_config
from verl_ext.config_defaults import complete_config
from verl_ext.unknown_keys import nearest

CONFIG_FOLDER = Path(__file__).parent / "config"

# Below these keys everything is allowed: they are passed on to others, who know their names.
OPEN_KEYS = (
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs.vllm",
    "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs",
    "data.apply_chat_template_kwargs",
    "data.mm_processor_kwargs",
    "ray_kwargs.ray_init.runtime_env.env_vars",
)


class RecipeError(Exception):
    """A recipe or override that cannot be run; the message names file or key, and the fix."""


def recipes() -> dict[str, str]:
    """Return every recipe with the first line of its header comment, in the order of names."""
    files = sorted(file for file in CONFIG_FOLDER.glob("*.yaml") if file.stem != "base")
    return {file.stem: file.read_text().splitlines()[0].lstrip("# ") for file in files}


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """Compose a recipe with Hydra overrides and return its config and the chosen options of its config groups.

    Raises RecipeError for an unknown recipe, for whatever Hydra refuses, and with all problems of `compose_recipe`.
    """
    config, choices, problems = compose_recipe(recipe, overrides)
    refuse(f"recipe {recipe}: {problem}" for problem in problems)
    return config, choices


def compose_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str], list[str]]:
    """Compose a recipe as `load_recipe` does, and return what is wrong with it as well.

    Problems are keys, in the recipe's files or the overrides, that neither veRL nor `base.yaml` knows, and settings
    under which the vote, or another method, would be wrong. An override of an unknown key is left out of the config.

    Raises:
        RecipeError: there is no such recipe, or Hydra refuses it.
    """
    known_recipes = recipes()
    if recipe not in known_recipes:
        raise RecipeError(f"there is no recipe {recipe!r}; known recipes: {', '.join(known_recipes)}")
    known_keys = _known_keys(CONFIG_FOLDER)
    problems = [
        f"{file}: {problem}"
        for file in _files_of(recipe)
        for key in _keys_of_file(file)
        if (problem := _problem_of_key(key, known_keys)) is not None
    ]
    kept = []
    for override in _parsed(overrides, RecipeError):
        key = override.key_or_group
        is_new = override.is_add() or override.is_force_add()
        if is_new or (CONFIG_FOLDER / key).is_dir() or (problem := _problem_of_key(key, known_keys)) is None:
            kept.append(str(override.input_line))
        else:
            problems.append(f"override {override.input_line}: {problem}")
    config, choices = _compose(recipe, kept)
    # Before the defaults, so that the message speaks of what was written.
    problems += problems_of_config(config)
    complete_config(config)
    try:
        read_baseline(config)
    except ValueError as error:
        problems.append(str(error))
    return config, choices, problems


def refuse(problems: Iterable[str]) -> None:
    """Raise RecipeError with all problems, if there are any."""
    if found := list(problems):
        raise RecipeError(found[0] if len(found) == 1 else "\n  ".join([f"{len(found)} problems:", *found]))


def compose_entry(folder: Path, name: str, overrides: Sequence[str], error: type[Exception]) -> DictConfig:
    """Compose the configuration of an entry point that is no recipe, `folder/name.yaml`.

    Raises `error` for a key that it does not have, and for whatever else Hydra refuses.
    """
    _parsed(overrides, error)
    try:
        with initialize_config_dir(str(folder), version_base=None):
            return compose(name, overrides=list(overrides))
    except HydraException as refused:
        raise error(f"{refused}\nThe keys are documented in {folder}") from refused


def _parsed(overrides: Sequence[str], error: type[Exception]) -> list[Override]:
    """Parse overrides; raises `error` for one that is none, with the quotes that a value needs to be read as text."""
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
    """Write a Hydra override that gives a key this value: a text, number, truth value, None, a list or dict of them."""
    return f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_quoted(one)}' for name, one in value.items())}}}"
    if isinstance(value, str):
        # A backslash escapes a quote alone, and backslashes before one.
        escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
        return f"'{escaped}'"
    return str(value)


@cache
def _known_keys(folder: Path) -> frozenset[str]:
    """The keys of the base, once for each `folder` that CONFIG_FOLDER is; composing takes a second."""
    return frozenset(_keys(_compose("base", [])[0]))


def _compose(name: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    verl = importlib.util.find_spec("verl")
    if verl is None or not verl.submodule_search_locations:
        raise RecipeError("veRL is not installed: run `make setup`")
    verl_configs = Path(verl.submodule_search_locations[0]) / "trainer" / "config"
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base=None):
            config = compose(
                name, overrides=[*overrides, f"hydra.searchpath=[file://{verl_configs}]"], return_hydra_config=True
            )
    except HydraException as error:
        raise RecipeError(f"recipe {name}: {error}") from error
    choices = {group: option for group, option in config.hydra.runtime.choices.items() if "@" not in group}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config, choices


def _files_of(recipe: str) -> list[Path]:
    """The recipe's own file, every file of ours that its defaults name, and all options of our config groups."""
    options = sorted(CONFIG_FOLDER.glob("*/*.yaml"))
    file = CONFIG_FOLDER / f"{recipe}.yaml"
    defaults = OmegaConf.select(OmegaConf.load(file), "defaults", default=[])
    parents = [name for name in defaults if isinstance(name, str) and (CONFIG_FOLDER / f"{name}.yaml").is_file()]
    return [file, *(parent for name in parents if name != "base" for parent in _files_of(name)), *options]


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in node:
        key = f"{prefix}{name!s}"
        yield key
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _keys(child, f"{key}.")


def _keys_of_file(file: Path) -> Iterator[str]:
    content = OmegaConf.load(file)
    if not isinstance(content, DictConfig):
        raise RecipeError(f"{file} holds no keys")
    return (key for key in _keys(content) if key != "defaults")


def _problem_of_key(key: str, known: frozenset[str]) -> str | None:
    if key in known or any(key.startswith(f"{open_key}.") for open_key in OPEN_KEYS):
        return None
    return f"there is no key {key!r}{nearest(key, known)}"
