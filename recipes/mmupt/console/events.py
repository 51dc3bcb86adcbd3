"""What a command has to say while it works, as events, and how they reach the process that shows them.

The process that shows them names a file in the environment variable MMUPT_CONSOLE. All processes of the command append
to it, one JSON line per event. Without the variable nothing is shown, and `tell` and `show_result` print.
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
# Its value where everything is printed and nothing shown, also by the commands that a command runs.
ALL_OUTPUT = ""
SECONDS_BETWEEN_PROGRESS = 0.5

Item = TypeVar("Item")


@dataclass(frozen=True)
class Head:
    """What runs: texts by their names."""

    rows: Mapping[str, str]


@dataclass(frozen=True)
class Phase:
    """A part of the work begins, and the one before has ended."""

    name: str


@dataclass(frozen=True)
class Progress:
    """So much of the current phase is done."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Part:
    """A part of the current phase begins, which lasts until the phase's next progress."""

    name: str


@dataclass(frozen=True)
class Detail:
    """What the command that is the current phase is doing."""

    text: str


@dataclass(frozen=True)
class Step:
    """A training step has ended, or the validation before the first one, which takes no time.

    Ratios and accuracies are from 0 to 1, None where they are not known. `total` is None where the number of steps is
    not known beforehand. `seconds` are those of the step with its validation.
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
        """Whether this is the validation before the first step of a start."""
        return self.seconds is None and self.validation_accuracy is not None


@dataclass(frozen=True)
class Warnings:
    """So many lines of the log are warnings."""

    count: int


@dataclass(frozen=True)
class Note:
    """Something worth reading, once."""

    text: str


@dataclass(frozen=True)
class Failure:
    """The command that is the current phase has failed: its cause, where it was raised and its log, a line each."""

    text: str


@dataclass(frozen=True)
class Result:
    """What the command was run for, as text with lines of any length."""

    text: str


@dataclass(frozen=True)
class Follow:
    """Show the steps that veRL's FileLogger writes to a file, which must not exist yet: veRL starts it anew."""

    file: str
    total: int | None


Event = Head | Phase | Part | Progress | Detail | Step | Warnings | Note | Failure | Result | Follow

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def write_event(event: Event) -> str:
    """An event as a line of JSON."""
    return json_line({"event": type(event).__name__, **asdict(event)})


def read_event(line: str | bytes) -> Event:
    """The event of a line that `write_event` has made."""
    content = json.loads(line)
    return _KINDS[content.pop("event")](**content)


def emit(event: Event) -> None:
    """Hand an event to the process that shows it, if any."""
    if file := os.environ.get(EVENTS_VARIABLE):
        append_event(file, event)


def append_event(file: str, event: Event) -> None:
    """Append an event to the file of a session, unless the session has ended."""
    # Not created here: the session may have ended. One write per line, so that lines of two processes never mix.
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, write_event(event).encode())
        finally:
            os.close(descriptor)


def printable(text: str) -> str:
    """A text for a terminal, whose ids, names and responses are not trusted: "?" for characters that control it."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def tell(text: str) -> None:
    """Show a note; it also goes to standard output, which is the log where there is a screen."""
    print(printable(text), flush=True)
    emit(Note(text))


def show_result(text: str) -> None:
    """Show a result; it also goes to standard output, which is the log where there is a screen."""
    print(text, flush=True)
    emit(Result(text))


def counted(items: Iterable[Item], done: int, total: int, unit: str) -> Iterator[Item]:
    """Yield the items, and emit how many there have been, `done` ones before them included."""
    emit(Progress(done, total, unit))
    emitted = time.monotonic()
    for item in items:
        yield item
        done += 1
        if done == total or time.monotonic() - emitted >= SECONDS_BETWEEN_PROGRESS:
            emitted = time.monotonic()
            emit(Progress(done, total, unit))


def follow(file: Path, total: int | None, keep: bool = False) -> None:
    """Show the steps of a training that is about to start and logs to `file` by veRL's FileLogger.

    The file of an earlier start, whose steps would be taken for this one's, is removed, or renamed from NAME.jsonl to
    NAME.1.jsonl, NAME.2.jsonl and so on if it is to be kept.
    """
    if keep and file.is_file():
        names = (file.with_suffix(f".{number}{file.suffix}") for number in count(1))
        file.rename(next(name for name in names if not name.exists()))
    file.unlink(missing_ok=True)
    emit(Follow(str(file), total))
