"""List the recipes and the options of every config group; with --explain, show which files set a key.

A recipe is a YAML file in mmupt/config/, whose header names its data and hardware. `GROUP=OPTION` replaces the option
that a recipe chooses: `mmupt train mmupt_geometry3k method=lmsi model=qwen2_5_vl_3b`.

    mmupt recipes
    mmupt recipes --config-dir my_configs
    mmupt recipes --explain actor_rollout_ref.actor.optim.lr mmupt_mathvista hardware=gpu_1x24gb
    mmupt recipes --explain actor_rollout_ref.rollout mmupt_smoke
"""

import argparse
from collections.abc import Sequence

from mmupt.commands import add_config_dir, add_recipe, as_messages


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """List the recipes and options, or explain a key."""
    parser.add_argument(
        "--explain",
        metavar="KEY",
        help="show the value of a key, or of all keys of a block, in RECIPE, with its comment and every file or "
        "override that sets it; the last one counts",
    )
    add_recipe(parser, nargs="?", help_prefix="with --explain: ")
    add_config_dir(parser)
    arguments = parser.parse_intermixed_args(words)
    if (arguments.explain is None) != (arguments.recipe is None):
        parser.error("--explain KEY and RECIPE go together")
    from mmupt.compose import RecipeError, use_config_dir
    from mmupt.key_sources import explain
    from mmupt.recipe_files import listing

    with as_messages(RecipeError):
        use_config_dir(arguments.config_dir)
        explained = arguments.explain and explain(arguments.recipe, arguments.overrides, arguments.explain)
    print(explained or listing())
