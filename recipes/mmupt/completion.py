"""Shell completion of `mmupt`: candidates for the word at the cursor.

The shell function that `mmupt completion` prints runs `mmupt` once per key press and passes the command line in
environment variables (argcomplete's protocol). This module and the command modules therefore import nothing slow at
the top.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from mmupt import recipe_files

# Environment variable of the shell function: how many words of the command line name the program.
REQUESTED = "_ARGCOMPLETE"
SHELLS = ("bash", "zsh", "fish")
PACKAGE = Path(__file__).parent

# Takes the prefix of a word and the arguments before it; returns the candidates, each with a one-line summary.
Completer = Callable[..., Mapping[str, str]]


def use_completer(argument: argparse.Action, completer: Completer) -> None:
    """Complete an argument by a function. Other arguments complete to their choices, or to files."""
    argument.completer = completer  # type: ignore[attr-defined]


def recipe_names(parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
    """Complete a recipe name."""
    _use_config_dir(parsed_args)
    return recipe_files.recipes()


def method_names(parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
    """Complete an option of the group `method`."""
    _use_config_dir(parsed_args)
    return recipe_files.options("method")


def group_overrides(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
    """Complete `GROUP=OPTION`, first the group and then its option."""
    _use_config_dir(parsed_args)
    group, is_assignment, _option = prefix.partition("=")
    if not is_assignment:
        return {f"{recipe_files.as_written(group)}=": f"an option of {group}" for group in recipe_files.GROUPS}
    return {f"{group}={option}": summary for option, summary in recipe_files.options(group.lstrip("+")).items()}


def presets_in(config: Path) -> Completer:
    """Return a completer of `preset=PRESET` for the presets in an entry point's config folder."""

    def complete(**_: Any) -> Mapping[str, str]:
        return {f"preset={file.stem}": "" for file in sorted((config / "preset").glob("*.yaml"))}

    return complete


def _use_config_dir(parsed_args: argparse.Namespace) -> None:
    if folder := getattr(parsed_args, "config_dir", None):
        os.environ[recipe_files.CONFIG_DIR_VARIABLE] = str(folder)


class _CompletingParser(argparse.ArgumentParser):
    """Completes the command line instead of parsing it, whichever of the two parse methods a command calls."""

    def parse_args(self, *_: Any) -> NoReturn:  # type: ignore[override]
        from argcomplete import autocomplete

        autocomplete(self, always_complete_options="long")
        raise AssertionError("argcomplete ends the process")

    parse_intermixed_args = parse_args  # type: ignore[assignment]

    def error(self, message: str) -> NoReturn:
        """Exit on an incomplete command line without the usage message, which would list all choices."""
        raise SystemExit(2)


def complete(commands: Mapping[str, str], module_of: Callable[[str], str]) -> NoReturn:
    """Answer the shell function and exit; `commands` maps each subcommand to its summary."""
    from argcomplete import split_line

    before = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    first = int(os.environ[REQUESTED])
    words: Sequence[str] = before[first:]
    parser = _CompletingParser(prog="mmupt")
    if words and words[0] in commands:
        # From here on, argcomplete treats the subcommand as the program.
        os.environ[REQUESTED] = str(first + 1)
        import_module(module_of(words[0])).run(parser, [])
    parser.add_argument("--version", action="store_true", help="print the version")
    subcommands = parser.add_subparsers()
    for name, summary in commands.items():
        subcommands.add_parser(name, help=summary)
    parser.parse_args()
