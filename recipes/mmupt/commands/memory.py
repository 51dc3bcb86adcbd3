"""Estimate the GPU memory that a recipe needs, part by part; without a recipe, print estimates for the paper's recipes.

The estimate is computed from the config and the model's shape; nothing is loaded or measured.

    mmupt memory mmupt_mathvista hardware=gpu_4x80gb
    mmupt memory
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_config_dir, add_recipe, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print the estimate."""
    add_recipe(parser, nargs="?")
    add_config_dir(parser)
    arguments = parser.parse_intermixed_args(words)
    from mmupt.compose import RecipeError, load_recipe, use_config_dir
    from mmupt.training.memory_estimate import report, table

    with as_messages(RecipeError):
        use_config_dir(arguments.config_dir)
        print(report(load_recipe(arguments.recipe, arguments.overrides)[0]) if arguments.recipe else table())
