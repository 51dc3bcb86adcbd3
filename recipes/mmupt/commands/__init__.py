"""The subcommands of `mmupt`, one module each: options, one call of the library, and its errors as messages.

The docstring of a module is its help: what the command does, then indented examples. `run(parser, words)` adds the
options, parses and runs; it returns the exit status, None for 0. The library is imported after parsing, because shell
completion needs only the options. `mmupt.cli` has the list.
"""

import argparse
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

from mmupt.completion import PACKAGE, group_overrides, presets_in, recipe_names, use_completer


class Choices(Collection[str]):
    """The choices of an argument, `MODULE:NAME`, imported when they are shown, compared with or completed.

    Set as `parser.add_argument(...).choices`: add_argument itself would ask for them at once. So would `%(default)s` in
    the help, where the default is written out instead.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def _load(self) -> Collection[str]:
        named: Collection[str] = resolve_name(self._name)
        # Of a Literal, its values.
        return get_args(named) or named

    def __contains__(self, choice: object) -> bool:
        return choice in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


@contextmanager
def as_messages(*errors: type[Exception]) -> Iterator[None]:
    """End the command with status 1 and the message of one of these errors."""
    try:
        yield
    except errors as error:
        sys.exit(f"error: {message_of(error)}")


def message_of(error: Exception) -> str:
    """The message of an error; of one of the operating system `FILE: No such file or directory`, without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


EXTRACTIONS = "mmupt.evaluation.verdicts:EXTRACTIONS"


def add_answer_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that replace how saved responses are scored."""
    where = parser.add_argument("--extraction", help="where the answer is in a response (default: as recorded)")
    where.choices = Choices(EXTRACTIONS)
    rule = parser.add_argument("--rule", help="rule that compares answers (default: as recorded, or canonical)")
    rule.choices = Choices("verl_ext.answers:AnswerRule")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the option of all commands that show progress; `mmupt.console.session` takes its value."""
    parser.add_argument("--verbose", action="store_true", help="print all output instead of only progress")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option of all commands that compose recipes; `mmupt.compose.use_config_dir` takes its value."""
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with your own recipes and options")


def add_recipe(parser: argparse.ArgumentParser, nargs: str | None = None, help_of_both: str = "") -> None:
    """Add the recipe of a command, which "?" as `nargs` makes optional, and the overrides that follow it."""
    recipe = parser.add_argument(
        "recipe", nargs=nargs, metavar="RECIPE", help=f"{help_of_both}a name that `mmupt recipes` lists"
    )
    use_completer(recipe, recipe_names)
    add_overrides(parser, f"{help_of_both}Hydra overrides of its config")


def add_settings(parser: argparse.ArgumentParser, folder: str, help_text: str) -> None:
    """Add the Hydra overrides of a command without recipes, whose config is in `mmupt/FOLDER/config`."""
    overrides = parser.add_argument("overrides", nargs="+", metavar="key=value", help=help_text)
    use_completer(overrides, presets_in(PACKAGE / folder / "config"))


def add_overrides(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the Hydra overrides of a recipe."""
    overrides = parser.add_argument("overrides", nargs="*", metavar="key=value", help=help_text)
    use_completer(overrides, group_overrides)
