"""Print the script that completes `mmupt` in a shell: commands, options, recipes and the options of config groups.

The first example is all that fish needs. Put the second into ~/.bashrc or, with `zsh`, into ~/.zshrc after compinit.

    mmupt completion fish > ~/.config/fish/completions/mmupt.fish
    eval "$(mmupt completion bash)"
"""

import argparse
from collections.abc import Sequence

from mmupt.completion import SHELLS


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print the script for the shell."""
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    shell = parser.parse_args(words).shell
    from argcomplete import shellcode

    print(shellcode(["mmupt"], shell=shell))
