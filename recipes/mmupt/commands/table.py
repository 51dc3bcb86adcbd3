"""Train several methods or recipes with several seeds, and compare them in one table and plot.

Trains every recipe by every method with every seed, as `mmupt train` in FOLDER/RECIPE-METHOD/seed_N; overrides apply to
all runs. After each run, rewrites table.md, table.json and table.png with all finished runs of FOLDER. Prints the first
table of table.md and the names of failed runs. After an interruption, the same command continues; other methods and
seeds add rows.

    mmupt table --methods mmupt supervised lmsi --seeds 1 2 3 --folder runs/table
    mmupt table --methods soft random --seeds 4 5 --folder runs/table --against mmupt_tiny
    mmupt table --recipes my_recipe --config-dir my_configs --methods mmupt random --seeds 1
    mmupt table --recipes mmupt_tiny mmupt_tiny_lora --seeds 1 --folder runs/short trainer.total_training_steps=5
    mmupt table --methods supervised --folder runs/table data.train_max_samples=64 mmupt.name=supervised_64
    mmupt table --methods mmupt random --folder runs/table --no-training
    mmupt table --recipes mmupt_tiny_hard --methods soft --seeds 4 --include docs/table_hard.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import add_config_dir, add_overrides, add_verbose, as_messages
from mmupt.completion import method_names, recipe_names, use_completer


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Train the missing runs and write the table."""
    recipes = parser.add_argument(
        "--recipes", nargs="+", default=["mmupt_tiny"], help="names that `mmupt recipes` lists (mmupt_tiny)"
    )
    use_completer(recipes, recipe_names)
    methods = parser.add_argument(
        "--methods", nargs="+", default=[], help="options of method= that `mmupt recipes` lists (each recipe's own)"
    )
    use_completer(methods, method_names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="seeds of the runs (1 2 3)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/table"), help="folder of the runs and the table (%(default)s)"
    )
    parser.add_argument("--against", help="row to test all others against, such as mmupt_tiny-random (the first row)")
    parser.add_argument(
        "--base",
        type=Path,
        metavar="RESPONSES",
        help="base model's responses by `mmupt eval`, whose majority all runs are tested against (each run's own)",
    )
    parser.add_argument(
        "--include",
        type=Path,
        metavar="TABLE",
        help="table.json of other runs on the same questions, to add as rows",
    )
    parser.add_argument(
        "--no-training", action="store_true", help="rewrite the table of finished runs without training"
    )
    add_overrides(parser, "Hydra overrides of every run")
    add_config_dir(parser)
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    folder, seeds = arguments.folder, arguments.seeds
    from mmupt.console import Phase, Result, emit, log_to, session, tell

    with session("mmupt table", arguments.verbose):
        from mmupt.compose import RecipeError, use_config_dir
        from mmupt.training import recipe_table

        with as_messages(RecipeError):
            use_config_dir(arguments.config_dir)
            selected = recipe_table.select_runs(arguments.recipes, arguments.methods, arguments.overrides)
        training = {} if arguments.no_training else selected
        included = {}
        if arguments.include is not None:
            with as_messages(FileNotFoundError, ValueError):
                included = recipe_table.read_included(arguments.include, folder, training, seeds)
        with as_messages(RecipeError):
            known = [*selected, *recipe_table.finished_runs(folder), *included]
            recipe_table.check_references(known, arguments.against, arguments.base)
        log_to(folder / "logs" / "table.log")
        emit(recipe_table.head_of(folder, list(selected), seeds))
        failed = []
        runs = [(seed, name) for seed in seeds for name in training]
        table = ""
        for number, (seed, name) in enumerate(runs, 1):
            emit(Phase(f"{name}, seed {seed} (run {number} of {len(runs)})"))
            target = recipe_table.run_folder(folder, name, seed)
            if recipe_table.train(target, seed, selected[name]):
                tell(recipe_table.outcome(target))
            else:
                failed.append(str(target))
            with as_messages(FileNotFoundError, ValueError):
                table = recipe_table.write_table(folder, list(selected), arguments.against, arguments.base, included)
            print(table, flush=True)
        if arguments.no_training:
            with as_messages(FileNotFoundError, ValueError):
                table = recipe_table.write_table(folder, list(selected), arguments.against, arguments.base, included)
            if not table:
                sys.exit(f"error: {folder} has no finished run: leave --no-training out")
        if table:
            # The other tables are too wide for a terminal.
            results, _, _ = table.partition("\n\n")
            emit(Result(f"{results}\n\nThe table is in {folder / 'table.md'}, with tests, costs and votes"))
        if failed:
            sys.exit(f"error: these runs failed, see logs/train.log in each: {', '.join(failed)}")
