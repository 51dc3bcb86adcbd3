"""Print the script that completes `mmupt` in a shell: commands, options, recipes and the options of config groups.

The first example is a line for ~/.bashrc; with `zsh`, one for ~/.zshrc after compinit. Fish finds the file by its name.

    eval "$(mmupt completion bash)"
    mmupt completion fish > ~/.config/fish/completions/mmupt.fish
"""

import argparse
from collections.abc import Sequence

from mmupt.completion import SHELLS


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print the script for the shell of the command line."""
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    shell = parser.parse_args(words).shell
    from argcomplete import shellcode

    print(shellcode(["mmupt"], shell=shell))
