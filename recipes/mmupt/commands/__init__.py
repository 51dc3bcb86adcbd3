"""The subcommands of `mmupt`. Each module defines its options, calls the library and prints its errors as messages.

The docstring of a module is the help of its command: what it does, then indented examples. `run(parser, words)` adds
the options to the parser, parses the words of the command line, and runs; it returns the exit status, None for 0. The
library is imported after parsing, because shell completion needs only the options. `mmupt.cli.COMMANDS` lists the
commands.
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
    """Choices of an argument, named as `MODULE:NAME` and imported when they are first needed.

    Assign them to `parser.add_argument(...).choices`: passed to add_argument, they would be imported at once. So they
    would be by `%(default)s` in the help, which spells out the default instead.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def _load(self) -> Collection[str]:
        choices: Collection[str] = resolve_name(self._name)
        # The name may be a Literal, whose arguments are the choices.
        return get_args(choices) or choices

    def __contains__(self, choice: object) -> bool:
        return choice in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


@contextmanager
def as_messages(*errors: type[Exception]) -> Iterator[None]:
    """Exit with status 1 and the message of the error if the block raises one of these errors."""
    try:
        yield
    except errors as error:
        sys.exit(f"error: {message_of(error)}")


def message_of(error: Exception) -> str:
    """Return the message of an error; of an OSError about a file, `FILE: REASON` without the errno."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


EXTRACTIONS = "mmupt.evaluation.verdicts:EXTRACTIONS"


def add_answer_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that override how saved responses were scored."""
    extraction = parser.add_argument("--extraction", help="where the answer is in a response (default: as recorded)")
    extraction.choices = Choices(EXTRACTIONS)
    rule = parser.add_argument("--rule", help="rule that compares answers (default: as recorded, or canonical)")
    rule.choices = Choices("verl_ext.answers:AnswerRule")


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add `--verbose` to a command that shows progress; `mmupt.console.session` takes its value."""
    parser.add_argument("--verbose", action="store_true", help="print all output instead of only progress")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--config-dir` to a command that composes recipes; `mmupt.compose.use_config_dir` takes its value."""
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with your own recipes and options")


def add_recipe(parser: argparse.ArgumentParser, nargs: str | None = None, help_prefix: str = "") -> None:
    """Add RECIPE, optional if `nargs` is "?", and the overrides that follow it."""
    recipe = parser.add_argument(
        "recipe", nargs=nargs, metavar="RECIPE", help=f"{help_prefix}a name that `mmupt recipes` lists"
    )
    use_completer(recipe, recipe_names)
    add_overrides(parser, f"{help_prefix}Hydra overrides of its config")


def add_settings(parser: argparse.ArgumentParser, folder: str, help_text: str) -> None:
    """Add the Hydra overrides of a command without recipes, whose config is in `mmupt/FOLDER/config`."""
    overrides = parser.add_argument("overrides", nargs="+", metavar="key=value", help=help_text)
    use_completer(overrides, presets_in(PACKAGE / folder / "config"))


def add_overrides(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the Hydra overrides of a recipe."""
    overrides = parser.add_argument("overrides", nargs="*", metavar="key=value", help=help_text)
    use_completer(overrides, group_overrides)
