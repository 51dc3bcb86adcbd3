"""The events that a command reports, and how they reach the process that shows them.

That process names a file in the environment variable MMUPT_CONSOLE. All processes of the command append events to it,
one JSON line each. Without the variable, no events are shown; `tell` and `show_result` still print.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar, get_args

from verl_ext.files import json_line

EVENTS_VARIABLE = "MMUPT_CONSOLE"
# The value of the variable under --verbose: print all output and show no events, in nested commands too.
ALL_OUTPUT = ""
SECONDS_BETWEEN_PROGRESS = 0.5

Item = TypeVar("Item")


@dataclass(frozen=True)
class Head:
    """The header: descriptions of the run by label."""

    rows: Mapping[str, str]


@dataclass(frozen=True)
class Phase:
    """A phase begins, which ends the previous one."""

    name: str


@dataclass(frozen=True)
class Progress:
    """Progress of the current phase."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Part:
    """A part of the current phase begins; it lasts until the next `Progress`."""

    name: str


@dataclass(frozen=True)
class Detail:
    """Current activity of the nested command that is the current phase."""

    text: str


@dataclass(frozen=True)
class Step:
    """A training step has ended, or the validation before the first step, which has no `seconds`.

    Ratios and accuracies range from 0 to 1 and are None if unknown, as is the `total` number of steps. `seconds`
    include the validation of the step.
    """

    step: int
    total: int | None
    majority_ratio: float | None = None
    label_accuracy: float | None = None
    reward_accuracy: float | None = None
    validation_accuracy: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None

    @property
    def is_first_validation(self) -> bool:
        """Whether this is the validation before the first step after a start."""
        return self.seconds is None and self.validation_accuracy is not None


@dataclass(frozen=True)
class Warnings:
    """Number of warnings in the log so far."""

    count: int


@dataclass(frozen=True)
class Note:
    """A message for the user, shown once."""

    text: str


@dataclass(frozen=True)
class Failure:
    """The nested command of the current phase has failed: its cause, where it was raised, and its log, one per line."""

    text: str


@dataclass(frozen=True)
class Result:
    """The result of the command, as text with lines of any length."""

    text: str


@dataclass(frozen=True)
class Follow:
    """Show the steps that veRL's FileLogger writes to a file. It must not exist yet: veRL overwrites it."""

    file: str
    total: int | None


Event = Head | Phase | Part | Progress | Detail | Step | Warnings | Note | Failure | Result | Follow

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def write_event(event: Event) -> str:
    """Return an event as a line of JSON."""
    return json_line({"event": type(event).__name__, **asdict(event)})


def read_event(line: str | bytes) -> Event:
    """Return the event of a line that `write_event` made."""
    content = json.loads(line)
    return _KINDS[content.pop("event")](**content)


def emit(event: Event) -> None:
    """Send an event to the process that shows it, if any."""
    if file := os.environ.get(EVENTS_VARIABLE):
        append_event(file, event)


def append_event(file: str, event: Event) -> None:
    """Append an event to the event file of a session, unless the session has ended."""
    # Without O_CREAT, because the session may have ended. A single write keeps lines of several processes apart.
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, write_event(event).encode())
        finally:
            os.close(descriptor)


def printable(text: str) -> str:
    """Replace control characters by "?": ids, names and responses are untrusted and must not control a terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def tell(text: str) -> None:
    """Show a note and print it to standard output, which is the log if there is a screen."""
    print(printable(text), flush=True)
    emit(Note(text))


def show_result(text: str) -> None:
    """Show a result and print it to standard output, which is the log if there is a screen."""
    print(text, flush=True)
    emit(Result(text))


def counted(items: Iterable[Item], done: int, total: int, unit: str) -> Iterator[Item]:
    """Yield the items and emit progress, which starts at `done`, the number of items finished earlier."""
    emit(Progress(done, total, unit))
    emitted = time.monotonic()
    for item in items:
        yield item
        done += 1
        if done == total or time.monotonic() - emitted >= SECONDS_BETWEEN_PROGRESS:
            emitted = time.monotonic()
            emit(Progress(done, total, unit))


def follow(file: Path, total: int | None, keep: bool = False) -> None:
    """Show the steps of a training that is about to start and logs to `file` with veRL's FileLogger.

    An existing file, whose steps would be mistaken for those of this training, is removed. With `keep`, it is renamed
    from NAME.jsonl to NAME.1.jsonl, NAME.2.jsonl and so on.
    """
    if keep and file.is_file():
        names = (file.with_suffix(f".{number}{file.suffix}") for number in count(1))
        file.rename(next(name for name in names if not name.exists()))
    file.unlink(missing_ok=True)
    emit(Follow(str(file), total))
