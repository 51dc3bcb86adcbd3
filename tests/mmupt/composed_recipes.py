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
    """A composed recipe for tests that only read it; cached, because composing takes a second."""
    return load_recipe(recipe, overrides)[0]


def validate(config: DictConfig, folder: Path) -> None:
    """Run veRL's validation of a config on a recipe with small data files, written into `folder`."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    rows = pa.table({"id": ["a"], "prompt": [[{"role": "user", "content": "how many ?"}]]})
    config = deepcopy(config)
    for name in ("train", "val"):
        pq.write_table(rows, folder / f"{name}.parquet")
        # Needed by supervised methods.
        pq.write_table(pa.table({"id": ["a"], "answer": ["4"]}), folder / f"{name}.truth.parquet")
        config.data[f"{name}_files"] = str(folder / f"{name}.parquet")
    validate_config(config, need_reference_policy(config), need_critic(config))


HARDWARE = sorted(file.stem for file in CONFIG_FOLDER.glob("hardware/*.yaml"))
