"""List the recipes, each with the first line of its file.

A recipe is a YAML file in mmupt/config/; its head says on what data and hardware it trains.

    mmupt recipes
"""

import argparse
from collections.abc import Sequence


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """List the recipes."""
    parser.parse_args(words)
    from mmupt.compose import recipes

    known = recipes()
    for name, summary in known.items():
        print(f"{name:{max(map(len, known))}}  {summary}")
