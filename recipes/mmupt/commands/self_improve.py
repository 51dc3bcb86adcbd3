"""Train in rounds: in each, the latest model writes questions about images and trains on them by majority vote.

`mmupt.self_improve` in a recipe names the images and the settings. If agreement rises while held-out scores fall beyond
noise, no further round starts, and the best model is kept. After an interruption, the same command continues.

    mmupt self-improve mmupt_tiny_self_improve --rounds 3
    mmupt self-improve my_recipe --config-dir my_configs --rounds 2 mmupt.seed=2
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmupt.commands import add_config_dir, add_recipe, add_verbose, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Run the rounds."""
    add_recipe(parser)
    parser.add_argument("--rounds", type=int, default=3, help="rounds in total (%(default)s)")
    parser.add_argument("--folder", type=Path, help="folder of all rounds (default: runs/RECIPE)")
    add_config_dir(parser)
    add_verbose(parser)
    arguments = parser.parse_intermixed_args(words)
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    from mmupt.console import session

    folder = arguments.folder or Path("runs") / arguments.recipe
    with session(f"mmupt self-improve {arguments.recipe}", arguments.verbose):
        from mmupt.compose import RecipeError, use_config_dir
        from mmupt.self_improvement.run_rounds import self_improve

        try:
            with as_messages(RecipeError, BlockingIOError):
                use_config_dir(arguments.config_dir)
                self_improve(arguments.recipe, arguments.rounds, folder, arguments.overrides)
        except subprocess.CalledProcessError as error:
            sys.exit(f"error: {' '.join(error.cmd[2:4])} failed with status {error.returncode}; see above")
