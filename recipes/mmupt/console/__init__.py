"""The screen of a running command: its progress and results. All other output goes to a log.

Any process of a command calls `emit` with an event. `Session` collects the events of all processes, draws them with
`Screen` and redirects all other output to the log. Imports neither veRL, Ray, vLLM nor torch.
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
