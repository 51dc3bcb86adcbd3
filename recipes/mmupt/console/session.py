"""Session of a command: redirects the output of all its processes to a log and shows their events.

Output is redirected by file descriptor, which includes C libraries and child processes. A thread reads the events, the
steps that veRL logs, and the log itself, in which it counts the warnings.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from mmupt.console.error_causes import find_cause
from mmupt.console.events import (
    ALL_OUTPUT,
    EVENTS_VARIABLE,
    Event,
    Failure,
    Follow,
    Phase,
    Warnings,
    append_event,
    read_event,
)
from mmupt.console.screen import Outline, Screen
from mmupt.console.step_metrics import read_step
from verl_ext.registry import PluginError

SECONDS_BETWEEN_LOOKS = 0.2
# The cause of an error is searched for in this many bytes at the end of a log.
BYTES_WITH_A_CAUSE = 1 << 18
_WARNING = re.compile(rb"\bWARN(ING)?\b|Warning:")

_current: "Session | None" = None


class Tail:
    """Reads complete lines that other processes append to a file. The file may not exist yet."""

    def __init__(self, file: Path, position: int = 0) -> None:
        self._file, self._position, self._rest = file, position, b""

    def lines(self) -> list[bytes]:
        """Return the lines completed since the last call, without line breaks."""
        try:
            with self._file.open("rb") as opened:
                opened.seek(self._position)
                new = opened.read()
        except FileNotFoundError:
            return []
        self._position += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        return whole


class Session:
    """A context that redirects standard output and error of this process and its children to a log.

    A nested command, such as the `mmupt train` of `mmupt table`, has no screen of its own: it reports a summary to the
    enclosing command.

    An exception becomes three lines about its cause and exit status 1; the log has its traceback. Interrupts and
    `sys.exit` keep their status.

    Args:
        title: the command, shown on the first line.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._log: Path | None = None
        self._log_start = 0
        self._tails: list[tuple[Tail, int | None]] = []
        self._log_tail: Tail | None = None
        self._warnings = 0
        # Whether a nested command has shown its failure.
        self._failure_is_shown = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="console", daemon=True)

    def __enter__(self) -> "Session":
        global _current
        _flush()
        self._descriptors = [os.dup(descriptor) for descriptor in (1, 2)]
        # Holds output until the log file is known.
        self._early = tempfile.TemporaryFile()
        self._redirect(self._early.fileno())
        self._outer = os.environ.get(EVENTS_VARIABLE)
        # An anonymous file, which disappears with this process however it ends.
        self._events = os.memfd_create("mmupt-console")
        events = f"/proc/{os.getpid()}/fd/{self._events}"
        self._event_tail = Tail(Path(events))
        self._sink = self._make_sink()
        os.environ[EVENTS_VARIABLE] = events
        _current = self
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(error)
        _flush()
        self._ended.set()
        self._thread.join()
        failed = error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0))
        lines = self._error_lines(error) if error is not None and failed else []
        if isinstance(error, SystemExit) and isinstance(error.code, str):
            # Python prints the message after this method; the log needs it, too.
            print(error.code, file=sys.stderr, flush=True)
            error.code = "\n".join([error.code, *self._where_all_output_is()])
        with suppress(OSError):
            self._sink.close()
            if lines:
                self._sink.show_error(lines)
        _current = None
        _set_variable(self._outer)
        os.close(self._events)
        for descriptor, original in zip((1, 2), self._descriptors, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        if self._log is None and isinstance(error, Exception) and not isinstance(error, PluginError):
            # Without a log, standard error is the only place for the traceback.
            self._early.seek(0)
            sys.stderr.write(self._early.read().decode(errors="replace"))
        self._early.close()
        if isinstance(error, KeyboardInterrupt):
            # The traceback is in the log. The process still ends by the signal.
            sys.excepthook = lambda *_: None
        if isinstance(error, Exception):
            raise SystemExit(1) from error

    def write_to(self, log: Path) -> None:
        """Append the output so far to a file, and redirect all further output to it."""
        log.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        self._log, self._log_start = log, log.stat().st_size if log.is_file() else 0
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._redirect(descriptor)
        # Copied after the redirection, when no process adds to it.
        self._early.seek(0)
        with open(descriptor, "ab") as opened:
            shutil.copyfileobj(self._early, opened)
        self._log_tail = Tail(log, self._log_start)

    def _make_sink(self) -> Screen | Outline:
        if outer := self._outer:
            return Outline(lambda event: append_event(outer, event))
        terminal = os.isatty(self._descriptors[0]) and os.environ.get("TERM") not in (None, "dumb", "unknown")
        output, errors = map(_text_file, self._descriptors)
        return Screen(self._title, output, errors, terminal)

    def _redirect(self, target: int) -> None:
        for descriptor in (1, 2):
            os.dup2(target, descriptor)

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self._look()
        self._look()

    def _look(self) -> None:
        # Events are read first and shown last: steps logged before an event are shown before it.
        events = [read_event(line) for line in self._event_tail.lines()]
        if self._log_tail is not None:
            new = sum(bool(_WARNING.search(line)) for line in self._log_tail.lines())
            if new:
                self._warnings += new
                self._show(Warnings(self._warnings))
        for tail, total in self._tails:
            for line in tail.lines():
                step = read_step(line, total)
                self._show(step)
                if step.is_first_validation:
                    self._show(Phase("train"))
        for event in events:
            if isinstance(event, Follow):
                self._tails.append((Tail(Path(event.file)), event.total))
            self._failure_is_shown |= isinstance(event, Failure)
            self._show(event)

    def _show(self, event: Event) -> None:
        # A closed terminal must not end the run.
        with suppress(OSError):
            self._sink.show(event)

    def _error_lines(self, error: BaseException) -> list[str]:
        lines: list[str] = []
        if isinstance(error, KeyboardInterrupt):
            lines = ["interrupted: run the same command again to continue"]
        elif self._failure_is_shown and _of_a_process(error):
            lines = []
        elif isinstance(error, PluginError):
            lines = [f"error: {error}"]
        elif isinstance(error, Exception) or _of_a_process(error):
            cause, where = find_cause(self._end_of_log())
            lines = [f"error: {cause}", *([f"  in {where}"] if where else [])]
        elif self._outer is not None:
            lines = [str(error)]
        if self._outer is None and isinstance(error, SystemExit) and isinstance(error.code, str):
            # Python prints the message with the path of the log.
            return lines
        return [*lines, *self._where_all_output_is()]

    def _where_all_output_is(self) -> list[str]:
        return [] if self._log is None else [f"  all output: {shown_path(self._log)}"]

    def _end_of_log(self) -> str:
        if self._log is None:
            self._early.seek(0)
            return self._early.read().decode(errors="replace")
        with self._log.open("rb") as opened:
            opened.seek(max(self._log_start, self._log.stat().st_size - BYTES_WITH_A_CAUSE))
            return opened.read().decode(errors="replace")


def _of_a_process(error: BaseException) -> bool:
    """Whether a child process of the command failed, so that the log has the cause."""
    reason = error.__context__
    return isinstance(reason, subprocess.CalledProcessError) or (
        reason is not None and isinstance(reason.__cause__, subprocess.CalledProcessError)
    )


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory if it is inside."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)


def _set_variable(value: str | None) -> None:
    if value is None:
        os.environ.pop(EVENTS_VARIABLE, None)
    else:
        os.environ[EVENTS_VARIABLE] = value


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _text_file(descriptor: int) -> TextIO:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return open(descriptor, "w", encoding=encoding, errors="replace", closefd=False)


@contextmanager
def session(title: str, verbose: bool) -> Iterator[None]:
    """Run a `Session`, unless this command or an enclosing one is verbose."""
    if not verbose and os.environ.get(EVENTS_VARIABLE) != ALL_OUTPUT:
        with Session(title):
            yield
        return
    before = os.environ.get(EVENTS_VARIABLE)
    os.environ[EVENTS_VARIABLE] = ALL_OUTPUT
    try:
        yield
    finally:
        _set_variable(before)


def log_to(log: Path) -> bool:
    """Redirect all output of the current session to a file; return False without a session."""
    if _current is None:
        return False
    _current.write_to(log)
    return True
