"""The command `mmupt`: finds the subcommand of a command line and runs it.

Each subcommand is a module of `mmupt.commands`, imported only when it runs; this keeps `mmupt --help` fast.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mmupt.completion import REQUESTED, complete
from verl_ext import __version__
from verl_ext.registry import PluginError
from verl_ext.unknown_keys import nearest

# Subcommand -> its line in `mmupt --help`. The module has the same name with underscores.
COMMANDS = {
    "train": "train a recipe, or continue it",
    "recipes": "list the recipes",
    "data": "prepare a data set, or list them",
    "check-leakage": "find training rows in evaluation files",
    "eval": "generate a model's responses to benchmarks and score them",
    "score": "score saved responses again",
    "import-responses": "import responses that another program generated",
    "compare": "compare two models on the same questions",
    "report": "rewrite the report of a run, or compare evaluations with the paper",
    "export": "prepare a model or written questions for the Hugging Face hub, and upload them",
    "view": "show runs in a browser: curves, votes, responses",
    "table": "train several recipes with several seeds and compare them",
    "synthesize": "let a model write questions about images",
    "self-improve": "train in rounds on questions that the model writes itself",
    "collapse": "replay the collapse alarm on a finished run",
    "memory": "estimate the GPU memory that a recipe needs",
    "tiny-model": "build or measure the tiny model of the CPU recipes",
    "doctor": "check this machine and installation, and say how to fix problems",
    "completion": "print the completion script for a shell",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own) and return its exit status.

    Raises:
        SystemExit: `--help`, or a command that ended early, with its message.
    """
    if REQUESTED in os.environ:
        complete(COMMANDS, module_of)
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"verl-mmupt {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: mmupt has no command {name!r}{nearest(name, COMMANDS)}", file=sys.stderr)
        print(f"commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = import_module(module_of(name))
    description, _, examples = (module.__doc__ or "").strip().partition("\n\n    ")
    parser = argparse.ArgumentParser(
        prog=f"mmupt {name}",
        description=description,
        epilog=f"examples:\n    {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    try:
        status = module.run(parser, words) or 0
        sys.stdout.flush()
        return status
    except PluginError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader closed the pipe, as in `mmupt recipes | head`. The flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def module_of(name: str) -> str:
    """Return the module of a subcommand."""
    return f"mmupt.commands.{name.replace('-', '_')}"


def overview() -> str:
    """Return the help of `mmupt` itself, with one line per command."""
    width = max(map(len, COMMANDS))
    lines = [f"    {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mmupt COMMAND ...",
            "",
            "MM-UPT for veRL: label-free GRPO by majority vote on vision-language models.",
            "",
            "commands:",
            *lines,
            "",
            "`mmupt COMMAND --help` explains a command and shows examples. Start with:",
            "    mmupt train mmupt_tiny",
        ]
    )
