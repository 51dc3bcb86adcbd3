"""Train a recipe: check it, prepare its data, train, export the model, evaluate it and write a report.

Everything is written to `mmupt.run_folder`, by default runs/RECIPE. After an interruption, the same command continues
from the last checkpoint. `mmupt recipes` lists recipes and options.

    mmupt train mmupt_tiny
    mmupt train mmupt_mathvista hardware=gpu_4x80gb mmupt.run_folder=runs/four_gpus
    mmupt train my_recipe --config-dir my_configs
    mmupt train mmupt_tiny trainer.total_training_steps=3 trainer.logger=[console]
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_config_dir, add_recipe, add_verbose, as_messages
from verl_ext.process_memory import collect_garbage_rarely


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Train the recipe."""
    add_recipe(parser)
    add_config_dir(parser)
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    # Call it before the imports, which create most objects.
    collect_garbage_rarely()
    from mmupt.console import session

    with session(f"mmupt train {arguments.recipe}", arguments.verbose):
        from mmupt.compose import RecipeError, use_config_dir
        from mmupt.training import recipe_run

        with as_messages(RecipeError, BlockingIOError):
            use_config_dir(arguments.config_dir)
            recipe_run.run_recipe(arguments.recipe, arguments.overrides)
