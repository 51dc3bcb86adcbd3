"""Finds in a log what ended a command, and where in the code. Pure."""

import re
from dataclasses import dataclass

# Colours, and Ray's name of the process that a line is from.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^(\(\w[^()]*\)) ?")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
_WATCHDOG = re.compile(r"watchdog: the run ends: (?P<reason>.+?)(?:\. The trainer stands at)?$")
_ERROR = re.compile(r"^error: (?P<reason>.+)")
_LIBRARIES = re.compile(r"^.*/(?:site-packages|python3\.\d+)/")
# What Ray lists about an actor that has died, before it says why.
_ACTOR = re.compile(r"^\s+(?:class_name|actor_id|pid|name|namespace|ip): ")
# Lines of a message that are read.
_LINES = 4


@dataclass
class _Traceback:
    """What one process has printed so far of its last traceback; `open` until its message has ended."""

    where: str | None = None
    open: bool = False
    message: list[str] | None = None


def find_cause(log: str) -> tuple[str, str | None]:
    """Return what went wrong, on one line, and where, as "FILE, line N, in FUNCTION", if the log says so.

    The last traceback or message counts. Only the watchdog of a run is believed before it: Ray sees no more than that a
    process is gone.
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
        elif found := _WATCHDOG.search(line):
            watchdog = found["reason"]
        elif found := _ERROR.match(line):
            last = [found["reason"]], None
            state.open, state.message = False, None
        elif state.open and state.message is None and line and not line[0].isspace():
            # The first line that is not indented after the frames names the exception.
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
