"""The subcommands of `mmupt`, one module each: options, one call of the library, and its errors as messages.

The docstring of a module is its help: what the command does, then indented examples. `run(parser, words)` adds the
options, parses and runs; it returns the exit status, None for 0. `mmupt.cli` has the list.
"""

import argparse
from pathlib import Path


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option of all commands that compose recipes; `mmupt.compose.use_config_dir` takes its value."""
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="folder of your own recipes and options, beside ours"
    )
