"""The page that shows the help of every command, as `mmupt COMMAND --help` prints it."""

import io
import os
from contextlib import redirect_stdout, suppress

from mmupt.cli import COMMANDS, main


def page() -> str:
    """Markdown of the page."""
    sections = ["# Commands", "The help of each command, as `mmupt COMMAND --help` prints it."]
    for name, summary in COMMANDS.items():
        sections += [f"## {name}", f"{summary[0].upper()}{summary[1:]}.", f"```text\n{_help(name)}```"]
    return "\n\n".join(sections) + "\n"


def _help(name: str) -> str:
    shown, width = io.StringIO(), os.environ.get("COLUMNS")
    # What argparse wraps its lines to.
    os.environ["COLUMNS"] = "110"
    try:
        with redirect_stdout(shown), suppress(SystemExit):
            main([name, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return shown.getvalue()
