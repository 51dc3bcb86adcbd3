"""Setup of all tests: veRL's CPU platform, no model downloads, and caches that speed up composing recipes."""

import gc
import io
import os
import pickle
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hypothesis import settings
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf import base as omegaconf_base
from yaml import YAMLError

from mmupt import compose
from verl_ext.process_memory import collect_garbage_rarely

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Two test processes share two cores, where more threads of torch would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# torch's flight recorder is not safe for process groups in several threads, which only tests have.
os.environ["TORCH_FR_BUFFER_SIZE"] = "0"

# Tests that run make must not inherit the variables of `make test ARGS=...`.
os.environ.pop("MAKEFLAGS", None)

# The time of an example depends on other work of the machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

collect_garbage_rarely()

_load_config = OmegaConf.load


@cache
def _pickled(text: str) -> bytes:
    return pickle.dumps(_load_config(io.StringIO(text)))


def _load_config_once(file: str | Path | IO[Any]) -> DictConfig | ListConfig:
    """Cached `OmegaConf.load`: parsing the same files takes half of the time of a composition."""
    text = Path(file).read_text(encoding="utf-8") if isinstance(file, str | Path) else file.read()
    try:
        return pickle.loads(_pickled(text))
    except YAMLError:
        # The message names the file.
        if not isinstance(file, str | Path):
            file.seek(0)
        return _load_config(file)


OmegaConf.load = staticmethod(_load_config_once)  # type: ignore[method-assign, assignment]
# Parsing the same interpolations takes two fifths of the time of a composition.
omegaconf_base.parse = cache(omegaconf_base.parse)

_create_defaults_list = config_loader_impl.create_defaults_list
_compose_defaults = ConfigLoaderImpl._compose_config_from_defaults_list
# Packages whose configs no test changes.
_PACKAGES = (Path(__file__).parents[1] / "recipes", Path(distribution("verl").locate_file("verl")))
_defaults_lists: dict[tuple[Any, ...], DefaultsList] = {}
_composed: dict[tuple[Any, ...], bytes] = {}


def _unchanging_sources(repo: IConfigRepository) -> tuple[str, ...] | None:
    """The config folders that Hydra searches; None if a test may change one of them."""
    folders = tuple(source.path for source in repo.get_sources() if source.scheme() == "file")
    are_fixed = all(any(Path(folder).is_relative_to(package) for package in _PACKAGES) for folder in folders)
    return folders if are_fixed else None


def _create_defaults_list_once(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **options: bool
) -> DefaultsList:
    """Cached version of Hydra's function, whose result depends on the chosen options but not on overrides of keys."""

    def is_of_group(override: Override) -> bool:
        return repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    group_overrides = [override for override in overrides_list if is_of_group(override)]
    key_overrides = [override for override in overrides_list if not is_of_group(override)]
    lines = (override.input_line for override in group_overrides)
    key = (_unchanging_sources(repo), config_name, *lines, *options.items())
    defaults = _defaults_lists.get(key) or _create_defaults_list(repo, config_name, group_overrides, **options)
    if key[0]:
        _defaults_lists[key] = defaults
    return DefaultsList(defaults.defaults, defaults.defaults_tree, key_overrides, defaults.overrides)


def _compose_defaults_once(
    loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
) -> DictConfig:
    """Cached version of Hydra's method, which runs before overrides of keys apply."""
    key = (_unchanging_sources(repo), str(defaults))
    if key not in _composed:
        config = _compose_defaults(loader, defaults, repo)
        if key[0] is None:
            return config
        _composed[key] = pickle.dumps(config)
    return pickle.loads(_composed[key])


_keys_of_file = compose._keys_of_file
_keys: dict[str, list[str]] = {}


def _keys_of_file_once(file: Path) -> Iterator[str]:
    """Cached version of our function, which every composition calls for all options."""
    text = file.read_text(encoding="utf-8")
    if text not in _keys:
        _keys[text] = [*_keys_of_file(file)]
    return iter(_keys[text])


compose._keys_of_file = _keys_of_file_once
config_loader_impl.create_defaults_list = _create_defaults_list_once
ConfigLoaderImpl._compose_config_from_defaults_list = _compose_defaults_once  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Exclude the 600,000 objects of imported modules from garbage collection."""
    gc.collect()
    gc.freeze()
