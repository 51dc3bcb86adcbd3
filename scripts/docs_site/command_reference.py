"""The page that shows the help of every command, as `mmupt COMMAND --help` prints it."""

import io
import os
from contextlib import redirect_stdout, suppress

from mmupt.cli import COMMANDS, main


def page() -> str:
    """Return the page as Markdown."""
    sections = ["# Commands", "The help of each command, as `mmupt COMMAND --help` prints it."]
    for name, summary in COMMANDS.items():
        sections += [f"## {name}", f"{summary[0].upper()}{summary[1:]}.", f"```text\n{_help(name)}```"]
    return "\n\n".join(sections) + "\n"


def _help(name: str) -> str:
    output, width = io.StringIO(), os.environ.get("COLUMNS")
    # argparse wraps lines at this width.
    os.environ["COLUMNS"] = "110"
    try:
        with redirect_stdout(output), suppress(SystemExit):
            main([name, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return output.getvalue()
