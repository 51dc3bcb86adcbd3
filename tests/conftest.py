"""Shared by all tests: veRL runs on its CPU platform, and nothing asks the network for a model."""

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
# Two processes run tests on two cores, on which further threads of torch would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Not safe for process groups in several threads of one process, which only tests have.
os.environ["TORCH_FR_BUFFER_SIZE"] = "0"

# Tests that run make do not inherit the variables of a `make test ARGS=...` above them.
os.environ.pop("MAKEFLAGS", None)

# How long an example takes is a matter of what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

collect_garbage_rarely()

_load_config = OmegaConf.load


@cache
def _pickled(text: str) -> bytes:
    return pickle.dumps(_load_config(io.StringIO(text)))


def _load_config_once(file: str | Path | IO[Any]) -> DictConfig | ListConfig:
    """`OmegaConf.load`, which parses each text once: half of the time of a composition is spent on the same files."""
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
# The checkout's packages and veRL, whose configs no test changes.
_PACKAGES = (Path(__file__).parents[1] / "recipes", Path(distribution("verl").locate_file("verl")))
_defaults_lists: dict[tuple[Any, ...], DefaultsList] = {}
_composed: dict[tuple[Any, ...], bytes] = {}


def _unchanging_sources(repo: IConfigRepository) -> tuple[str, ...] | None:
    """The folders in which Hydra looks for files; None if a test may change one of them."""
    folders = tuple(source.path for source in repo.get_sources() if source.scheme() == "file")
    are_ours = all(any(Path(folder).is_relative_to(package) for package in _PACKAGES) for folder in folders)
    return folders if are_ours else None


def _create_defaults_list_once(
    repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **options: bool
) -> DefaultsList:
    """Hydra's function, which depends on no override of a key: so once for each choice of options is enough."""

    def is_of_group(override: Override) -> bool:
        return repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    of_groups = [override for override in overrides_list if is_of_group(override)]
    of_keys = [override for override in overrides_list if not is_of_group(override)]
    key = (_unchanging_sources(repo), config_name, *(one.input_line for one in of_groups), *options.items())
    found = _defaults_lists.get(key) or _create_defaults_list(repo, config_name, of_groups, **options)
    if key[0]:
        _defaults_lists[key] = found
    return DefaultsList(found.defaults, found.defaults_tree, of_keys, found.overrides)


def _compose_defaults_once(
    loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
) -> DictConfig:
    """Hydra's method, whose result no override of a key has changed yet."""
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
    """Our function, which is asked for all options in every composition, once for each text."""
    text = file.read_text(encoding="utf-8")
    if text not in _keys:
        _keys[text] = [*_keys_of_file(file)]
    return iter(_keys[text])


compose._keys_of_file = _keys_of_file_once
config_loader_impl.create_defaults_list = _create_defaults_list_once
ConfigLoaderImpl._compose_config_from_defaults_list = _compose_defaults_once  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Leave the 600,000 objects of veRL's modules out of every search for cyclic garbage."""
    gc.collect()
    gc.freeze()
