"""Composed recipes for tests that only read them, and veRL's own validation."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from mmupt.compose import load_recipe
from mmupt.recipe_files import CONFIG_FOLDER


@cache
def shipped(recipe: str, *overrides: str) -> DictConfig:
    """A recipe for tests that only read it: composing takes a second."""
    return load_recipe(recipe, overrides)[0]


def validate(config: DictConfig, folder: Path) -> None:
    """As veRL validates before it starts, when the files of a recipe are made."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    rows = pa.table({"id": ["a"], "prompt": [[{"role": "user", "content": "how many ?"}]]})
    config = deepcopy(config)
    for name in ("train", "val"):
        pq.write_table(rows, folder / f"{name}.parquet")
        # For the methods with labels.
        pq.write_table(pa.table({"id": ["a"], "answer": ["4"]}), folder / f"{name}.truth.parquet")
        config.data[f"{name}_files"] = str(folder / f"{name}.parquet")
    validate_config(config, need_reference_policy(config), need_critic(config))


HARDWARE = sorted(file.stem for file in CONFIG_FOLDER.glob("hardware/*.yaml"))
