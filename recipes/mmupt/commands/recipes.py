"""List the recipes and the options of every config group, each with the first line of its file.

A recipe is a YAML file in mmupt/config/; its head says on what data and hardware it trains. `GROUP=OPTION` replaces the
option that a recipe chooses: `mmupt train mmupt_geometry3k method=lmsi model=qwen2_5_vl_3b`.

    mmupt recipes
    mmupt recipes --config-dir my_configs
"""

import argparse
import sys
from collections.abc import Sequence

from mmupt.commands import add_config_dir


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """List the recipes and options."""
    add_config_dir(parser)
    arguments = parser.parse_args(words)
    from mmupt.compose import RecipeError, listing, use_config_dir

    try:
        use_config_dir(arguments.config_dir)
    except RecipeError as error:
        sys.exit(f"error: {error}")
    print(listing())
