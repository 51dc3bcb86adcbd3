"""What a command shows while it works: one screen, with everything else in a log.

Whatever works calls `emit` with an event, in whichever process it runs. `Session` collects the events of all processes
of a command, draws them by `Screen`, and sends all other output to the log. Imports neither veRL, Ray, vLLM nor torch.
"""

from mmupt.console.events import (
    Head,
    Note,
    Part,
    Phase,
    Progress,
    Result,
    counted,
    emit,
    follow,
    printable,
    show_result,
    tell,
)
from mmupt.console.session import log_to, session, shown_path

__all__ = [
    "Head",
    "Note",
    "Part",
    "Phase",
    "Progress",
    "Result",
    "counted",
    "emit",
    "follow",
    "log_to",
    "printable",
    "session",
    "show_result",
    "shown_path",
    "tell",
]
