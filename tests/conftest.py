"""Shared by all tests: veRL runs on its CPU platform, and nothing asks the network for a model."""

import gc
import io
import os
import pickle
from functools import cache
from pathlib import Path
from typing import IO, Any

from hypothesis import settings
from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from verl_ext.process_memory import collect_garbage_rarely

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
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


def pytest_collection_finish() -> None:
    """Leave the 600,000 objects of veRL's modules out of every search for cyclic garbage."""
    gc.collect()
    gc.freeze()
