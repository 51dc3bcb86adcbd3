"""Train several recipes with several seeds, and compare them in one table and plot.

Every run is `mmupt train` in FOLDER/RECIPE/seed_N; overrides hold for all of them. After each run, table.md (printed,
too), table.json and table.png are rewritten. A run that fails is named at the end. After an interruption, the same
command continues.

    mmupt table --recipes mmupt_tiny mmupt_tiny_random --seeds 1 2 3 --folder runs/table
    mmupt table --recipes mmupt_tiny mmupt_tiny_supervised --seeds 1 --folder runs/short trainer.total_training_steps=5
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmupt.compose import RecipeError
from mmupt.training import recipe_table


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Train what is missing and write the table of the command line."""
    parser.add_argument("--recipes", nargs="+", required=True, help="names that `mmupt recipes` lists")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of every recipe (1 2 3)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/table"), help="of the runs and the table (%(default)s)"
    )
    parser.add_argument("--against", help="the recipe that all are tested against (default: the first one)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides of every recipe")
    arguments = parser.parse_intermixed_args(words)
    folder, recipes, overrides = arguments.folder, arguments.recipes, arguments.overrides
    try:
        recipe_table.check(recipes, overrides)
    except RecipeError as error:
        sys.exit(f"error: {error}")
    failed = []
    for seed in arguments.seeds:
        for recipe in recipes:
            if not recipe_table.train(folder, recipe, seed, overrides):
                failed.append(str(recipe_table.run_folder(folder, recipe, seed)))
            print(recipe_table.write_table(folder, recipes, arguments.seeds, arguments.against), flush=True)
    if failed:
        sys.exit(f"error: these runs failed, see logs/train.log in each: {', '.join(failed)}")
