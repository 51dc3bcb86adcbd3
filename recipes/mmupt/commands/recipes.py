"""List the recipes and the options of every config group, each with the first line of its file.

A recipe is a YAML file in mmupt/config/; its head says on what data and hardware it trains. `GROUP=OPTION` replaces the
option that a recipe chooses: `mmupt train mmupt_geometry3k method=lmsi model=qwen2_5_vl_3b`.

    mmupt recipes
"""

import argparse
from collections.abc import Sequence


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """List the recipes and options."""
    parser.parse_args(words)
    from mmupt.compose import listing

    print(listing())
