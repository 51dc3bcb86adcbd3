"""Find the error that ended a command, and where it was raised, in a log. Pure."""

import re
from dataclasses import dataclass

# Colour codes, and the prefix by which Ray names the process that printed a line.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^(\(\w[^()]*\)) ?")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
_WATCHDOG = re.compile(r"watchdog: the run ends: (?P<reason>.+?)(?:\. The trainer stands at)?$")
_ERROR = re.compile(r"^error: (?P<reason>.+)")
_LIBRARIES = re.compile(r"^.*/(?:site-packages|python3\.\d+)/")
# Details that Ray lists about a dead actor before the reason.
_ACTOR = re.compile(r"^\s+(?:class_name|actor_id|pid|name|namespace|ip): ")
# Maximum number of lines of an exception message to keep.
_LINES = 4


@dataclass
class _Traceback:
    """The last traceback of one process, as far as printed; `open` until its message has ended."""

    where: str | None = None
    open: bool = False
    message: list[str] | None = None


def find_cause(log: str) -> tuple[str, str | None]:
    """Return the error on one line, and its place as "FILE, line N, in FUNCTION" if the log has it.

    The last traceback or error message wins, except that the message of a run's watchdog precedes all: Ray knows only
    that a process is gone.
    """
    by_process: dict[str, _Traceback] = {}
    watchdog: str | None = None
    last: tuple[list[str], str | None] | None = None
    for raw in log.splitlines():
        line = _COLOUR.sub("", raw).rstrip()
        process = _PROCESS.match(line)
        line = line[process.end() :] if process else line
        state = by_process.setdefault(process[1] if process else "", _Traceback())
        if frame := _FRAME.match(line):
            function = f", in {frame['function']}" if frame["function"] else ""
            state.where = f"{_LIBRARIES.sub('', frame['file'])}, line {frame['line']}{function}"
            state.open, state.message = True, None
        elif ended := _WATCHDOG.search(line):
            watchdog = ended["reason"]
        elif error := _ERROR.match(line):
            last = [error["reason"]], None
            state.open, state.message = False, None
        elif state.open and state.message is None and line and not line[0].isspace():
            # The first unindented line after the frames names the exception.
            state.message = [line]
            last = state.message, state.where
        elif state.open and state.message is not None:
            if _ACTOR.match(line):
                continue
            if line and len(state.message) < _LINES and not line.startswith("Traceback "):
                state.message.append(line.strip())
            else:
                state.open = False
    if watchdog is not None:
        return watchdog, None
    if last is not None:
        return " ".join(last[0]), last[1]
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it printed nothing"), None
