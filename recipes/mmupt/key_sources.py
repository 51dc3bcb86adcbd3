"""Explains where the value of a config key comes from: every place that sets it, with the comment above it.

Does not start anything or import veRL.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mmupt.compose import FILLED_IN, RecipeError, compose_recipe, search_folders, search_path
from mmupt.recipe_files import FOUNDATIONS, GROUPS
from verl_ext.unknown_keys import nearest


@dataclass(frozen=True)
class Layer:
    """A file that Hydra composes.

    kind: base, recipe, veRL, or the config group of the option.
    name: path of the file in its config folder, without the suffix.
    package: the key under which Hydra merges the content; empty for the root.
    """

    kind: str
    name: str
    package: str
    file: Path


@dataclass(frozen=True)
class Setting:
    """One place that sets a key.

    kind: the kind of a `Layer`, "command line" or "launcher".
    place: path of the file in its config folder, or the override; empty for the launcher.
    value: as written, with interpolations; for the launcher, how it computes the value.
    comment: the comment above the key.
    """

    kind: str
    place: str
    value: str
    comment: str


@dataclass(frozen=True)
class DocumentedKey:
    """A key of a YAML file.

    name: the dotted key.
    value: as written, with interpolations; None for a block of keys.
    comment: the comment above the key, joined into one line; empty if there is none.
    """

    name: str
    value: str | None
    comment: str


def documented_keys(file: Path) -> list[DocumentedKey]:
    """List the keys that a YAML file sets, in file order; blocks are included if they have a comment."""
    text, node = _parsed(file)
    return [*_documented(node, text, "")] if node is not None else []


def header(file: Path) -> str:
    """Return the comment at the top of a YAML file, with line breaks and without Hydra's `@package` directive."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    return "\n".join(line[2:] for line in lines if "@package" not in line)


def explain(recipe: str, overrides: Sequence[str], key: str) -> str:
    """Describe the composed value of a key and every place that sets it; for a block, describe all of its keys.

    The last place listed determines the value.

    Raises:
        RecipeError: the recipe does not compose, or has no such key.
    """
    config, _, _ = compose_recipe(recipe, overrides)
    parent, _, name = key.rpartition(".")
    block = OmegaConf.select(config, parent, throw_on_missing=False) if parent else config
    if not isinstance(block, DictConfig) or name not in block:
        raise RecipeError(f"recipe {recipe} has no key {key!r}{nearest(key, list(_leaves(config)))}")
    layers = config_layers(recipe, overrides)
    keys = [key] if _is_leaf(block, name) else list(_leaves(block[name], f"{key}."))
    return "\n\n".join(_paragraph(one, config, settings_of(one, layers, overrides)) for one in keys)


def config_layers(recipe: str, overrides: Sequence[str]) -> list[Layer]:
    """Return the files of a composed recipe, including veRL's, in the order in which Hydra merges them."""
    first, *others = folders = search_folders(recipe)
    with initialize_config_dir(str(first), version_base=None):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        listed = hydra.config_loader.compute_defaults_list(recipe, [*overrides, search_path(others)], RunMode.RUN)
    layers = []
    for default in listed.defaults:
        name = default.config_path or ""
        files = [folder / f"{name}.yaml" for folder in folders]
        file = next((file for file in files if file.is_file()), None)
        if file is not None and not name.startswith("hydra/"):
            kind = "veRL" if file == files[-1] else _kind(name)
            layers.append(Layer(kind, name, default.package or "", file))
    return layers


def _kind(name: str) -> str:
    group = name.split("/")[0]
    if group in FOUNDATIONS:
        return "base"
    return group if group in GROUPS and group != name else "recipe"


def settings_of(key: str, layers: Sequence[Layer], overrides: Sequence[str]) -> list[Setting]:
    """Return every place that sets a key; the last one determines the value."""
    found = []
    for layer in layers:
        prefix = f"{layer.package}." if layer.package else ""
        if key.startswith(prefix) and (written := _find(layer.file, key.removeprefix(prefix))) is not None:
            found.append(Setting(layer.kind, f"{layer.name}.yaml", *written))
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        if name == key:
            found.append(Setting("command line", override, value, ""))
    if key in FILLED_IN and found[-1].value in ("null", "???"):
        found.append(Setting("launcher", "", FILLED_IN[key], ""))
    return found


def _find(file: Path, key: str) -> tuple[str, str] | None:
    """Return the value of a key in a YAML file and the comment above it; None if the file does not set the key."""
    text, node = _parsed(file)
    line = 0
    for part in key.split("."):
        entries = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next((entry for entry in entries if entry[0].value == part), None)
        if found is None:
            return None
        line, node = found[0].start_mark.line, found[1]
    return _text_of(node, text), _comment_above(text.splitlines(), line)


@cache
def _parsed(file: Path) -> tuple[str, Any]:
    text = file.read_text()
    return text, yaml.compose(text, yaml.SafeLoader)


def _documented(node: Any, text: str, prefix: str) -> Iterator[DocumentedKey]:
    lines = text.splitlines()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name == "defaults":
            continue
        comment = _comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if comment:
                yield DocumentedKey(name, None, comment)
            yield from _documented(value, text, f"{name}.")
        else:
            yield DocumentedKey(name, _text_of(value, text), comment)


def _text_of(node: Any, text: str) -> str:
    return " ".join(text[node.start_mark.index : node.end_mark.index].split()) or "null"


def _comment_above(lines: Sequence[str], line: int) -> str:
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    # A comment at the top of a file describes the file, not its first key.
    return " ".join(text.strip().lstrip("# ") for text in lines[first:line]) if first else ""


def _is_leaf(block: DictConfig, name: Any) -> bool:
    node = block._get_node(name)
    return not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or not node


def _leaves(block: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in block:
        if _is_leaf(block, name):
            yield f"{prefix}{name!s}"
        else:
            yield from _leaves(block[name], f"{prefix}{name!s}.")


def _paragraph(key: str, config: DictConfig, settings: Sequence[Setting]) -> str:
    lines = [f"{key} = {_shown(config, key)}"]
    for setting in settings:
        place = f"{setting.kind} ({setting.place})" if setting.place else setting.kind
        lines.append(f"  {place}: {setting.value}" if setting.kind != "command line" else f"  {place}")
        lines += textwrap.wrap(setting.comment, 110, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _shown(config: DictConfig, key: str) -> str:
    parent, _, name = key.rpartition(".")
    block = OmegaConf.select(config, parent) if parent else config
    if OmegaConf.is_missing(block, name):
        return "???"
    value = block[name]
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return "null" if plain is None else str(plain)
