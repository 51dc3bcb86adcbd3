"""Draw the events of a command on a terminal, or as plain lines without one. Pure: it only writes to a file.

Permanent lines, such as one row per step, are the same in both. A terminal also has a live status line at the bottom:
the current phase with its duration, a progress bar, the remaining time, and the number of warnings.
"""

import textwrap
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mmupt.console.events import (
    Detail,
    Event,
    Failure,
    Follow,
    Head,
    Note,
    Part,
    Phase,
    Progress,
    Result,
    Step,
    Warnings,
    printable,
)

# Width of plain-text output. Terminals may be narrower.
WIDTH = 120
# Maximum length of error lines, which are not clipped to the width of the terminal.
LONGEST_LINE = 200
# Number of steps after which the table repeats its heading.
ROWS_PER_HEADING = 40
# Minimum progress and time between two plain-text progress lines.
SHARE_BETWEEN_LINES, SECONDS_BETWEEN_LINES = 0.1, 30.0
# A plain-text line about a nested command is printed when its phase has lasted this many times as long as at the
# previous line: some thirty lines per day.
GROWTH_BETWEEN_LINES = 1.25
# Number of recent steps averaged to estimate the remaining time.
RECENT_STEPS = 20
# Maximum number of lines of a note; the log has the whole note.
LINES_OF_A_NOTE = 12


@dataclass(frozen=True)
class Column:
    """A column of the table of steps. On a narrow terminal, the columns of the highest `rank` are left out."""

    name: str
    width: int
    rank: int
    cell: Callable[[Step], str]
    # Left out if its cell is empty at the first step of the table.
    optional: bool = False


def percent(share: float | None) -> str:
    """Format a ratio as a percentage; empty for None."""
    return "" if share is None else f"{100 * share:.1f} %"


def clock(seconds: float) -> str:
    """Format seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def warnings_of(count: int) -> str:
    """Format the number of warnings."""
    return f"{count} warning{'' if count == 1 else 's'}"


def step_of(step: Step) -> str:
    """Format the number of a step, with the total if it is known."""
    return str(step.step) if step.total is None else f"{step.step}/{step.total}"


@dataclass
class TrainingSteps:
    """The durations of recent training steps, which give the remaining time."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))

    def left(self, step: Step) -> float | None:
        """Add a step and return the seconds until the end of the last step; None if unknown."""
        if step.seconds is not None:
            self.seconds.append(step.seconds)
        if step.total is None or not self.seconds:
            return None
        return (step.total - step.step) * fmean(self.seconds)


def summary(step: Step, left: float | None) -> str:
    """Summarize a step on one line."""
    parts = [
        f"step {step_of(step)}",
        f"majority {percent(step.majority_ratio)}" if step.majority_ratio is not None else "",
        f"validation {percent(step.validation_accuracy)}" if step.validation_accuracy is not None else "",
        f"{clock(left)} left" if left else "",
    ]
    return ", ".join(filter(None, parts))


class Screen:
    """Draws events into a file.

    Args:
        title: the command.
        file: output file.
        errors: output file for the error that ended the command.
        terminal: whether the files are a terminal, whose last line can be redrawn.
        width: number of columns; None for the width of the terminal, or WIDTH.
        now: clock, in seconds.
    """

    def __init__(
        self,
        title: str,
        file: TextIO,
        errors: TextIO,
        terminal: bool,
        width: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._errors = (
            Console(
                file=output,
                force_terminal=terminal,
                width=width or (None if terminal else WIDTH),
                highlight=False,
                markup=False,
                emoji=False,
            )
            for output in (file, errors)
        )
        self._terminal, self._now = terminal, now
        self._started = self._phase_started = now()
        self._phase: str | None = None
        self._detail = ""
        self._progress: Progress | None = None
        # Number of items done, and the time, at the first two progress events of a phase.
        self._counted: list[tuple[int, float]] = []
        self._last_line = (0.0, now())
        self._columns: list[Column] | None = None
        self._rows = 0
        self._steps = TrainingSteps()
        self._left: float | None = None
        self._warnings = 0
        self._print(title, "bold")
        self._live: Live | None = None
        if terminal:
            self._live = Live(
                get_renderable=self._bottom_line,
                console=self._console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            # rich hides the cursor, and a killed process could not restore it.
            self._console.show_cursor(True)

    def show(self, event: Event) -> None:
        """Draw an event."""
        match event:
            case Head():
                self._show_head(event.rows)
            case Phase():
                self._begin(event.name)
            case Part():
                self._begin_part(event.name)
            case Progress():
                self._detail = ""
                self._show_progress(event)
            case Detail():
                self._show_detail(event.text)
            case Step():
                self._show_step(event)
            case Warnings():
                self._warnings = event.count
            case Note():
                self._show_note(event.text)
            case Failure():
                for line in event.text.splitlines():
                    self._print(_clipped(" " * 9 + line, LONGEST_LINE), "red")
            case Result():
                self._end_phase()
                self._print(event.text)
            case Follow():
                self._steps, self._columns = TrainingSteps(), None

    def close(self) -> None:
        """End the current phase and remove the status line."""
        self._end_phase()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._warnings and self._columns is None:
            self._show_note(f"{warnings_of(self._warnings)} in the log")

    def show_error(self, lines: Sequence[str]) -> None:
        """Draw the error that ended the command, after `close`."""
        for line in lines:
            # Let the terminal wrap: clipped paths and messages are useless.
            self._errors.print(Text(printable(_clipped(line, LONGEST_LINE)), "red"), soft_wrap=True)

    def _print_timed(self, text: str, seconds: float | None = None, style: str = "") -> None:
        """Print a line that starts with the seconds since the start of the command, by default the present ones."""
        line = f"{clock(self._now() - self._started if seconds is None else seconds):>7}  {text}"
        self._print(_clipped(line, self._console.width), style)

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text(printable(line), style), soft_wrap=True)

    def _wrapped(self, text: str, indent: int) -> list[str]:
        return textwrap.wrap(text, max(self._console.width - indent, 20), break_on_hyphens=False)

    def _show_head(self, rows: Mapping[str, str]) -> None:
        width = max(map(len, rows), default=0) + 4
        for name, text in rows.items():
            for number, line in enumerate(self._wrapped(text, width) or [""]):
                self._print(f"{'' if number else f'  {name}':{width}}{line}")

    def _begin(self, name: str) -> None:
        self._end_phase()
        self._phase, self._phase_started = name, self._now()
        self._progress, self._detail, self._left = None, "", None
        self._counted = []
        self._last_line = (0.0, self._now())
        if not self._terminal:
            self._print_timed(name)

    def _begin_part(self, name: str) -> None:
        self._detail = name
        if not self._terminal:
            self._print_timed(f"  {name}")

    def _show_detail(self, text: str) -> None:
        self._detail = text
        now, (share, before) = self._now(), self._last_line
        lasted = before - self._phase_started
        if self._terminal or now - before < max(SECONDS_BETWEEN_LINES, (GROWTH_BETWEEN_LINES - 1) * lasted):
            return
        self._last_line = share, now
        self._print_timed(f"  {text}")

    def _end_phase(self) -> None:
        """Print a line about the finished phase on a terminal; plain output has it since the phase began."""
        if self._phase is not None and self._terminal:
            began, took = self._phase_started - self._started, self._now() - self._phase_started
            self._print_timed(f"{self._phase} ({took:.0f} s)", began, "dim")
        self._phase = None

    def _show_progress(self, progress: Progress) -> None:
        self._progress = progress
        share, before, seconds = progress.done / max(progress.total, 1), *self._last_line
        self._left = None
        if len(self._counted) < 2:
            # Exclude items of earlier starts, and the first item of this one, which waited for the engine.
            self._counted.append((progress.done, self._now()))
        elif (done := progress.done - self._counted[-1][0]) > 0:
            elapsed = self._now() - self._counted[-1][1]
            self._left = elapsed / done * (progress.total - progress.done)
        if self._terminal or progress.done >= progress.total:
            return
        if share - before >= SHARE_BETWEEN_LINES and self._now() - seconds >= SECONDS_BETWEEN_LINES:
            self._last_line = share, self._now()
            left = f", {clock(self._left)} left" if self._left else ""
            self._print(f"{'':7}  {progress.done} of {progress.total} {progress.unit}{left}")

    def _show_step(self, step: Step) -> None:
        if step.total is not None:
            self._progress = Progress(step.step, step.total, "steps")
        self._left = self._steps.left(step)
        if step.is_first_validation:
            self._show_note(f"validation accuracy {percent(step.validation_accuracy)} at step {step.step}")
        if step.majority_ratio is None and step.reward_accuracy is None and step.tokens_per_second is None:
            self._show_progress(self._progress or Progress(step.step, 0, "steps"))
            return
        if self._columns is None:
            self._columns, self._rows = self._fitting_columns(step), 0
        if self._rows % ROWS_PER_HEADING == 0:
            self._print(self._row([column.name for column in self._columns]), "bold")
        self._rows += 1
        self._print(self._row([column.cell(step) for column in self._columns]))

    def _row(self, cells: Sequence[str]) -> str:
        assert self._columns is not None
        line = "  ".join(f"{cell:>{column.width}}" for cell, column in zip(cells, self._columns, strict=True))
        return line.rstrip()

    def _fitting_columns(self, step: Step) -> list[Column]:
        """Return the columns that have values in this training and fit on the screen."""
        wide = len(f"{step.total or 100_000}")
        columns = [
            Column("step", max(7, 2 * wide + 1), 0, step_of),
            Column("majority", 8, 1, lambda s: percent(s.majority_ratio), optional=True),
            Column("label acc.", 10, 4, lambda s: percent(s.label_accuracy), optional=True),
            Column("reward acc.", 11, 5, lambda s: percent(s.reward_accuracy), optional=True),
            Column("validation", 10, 2, lambda s: percent(s.validation_accuracy)),
            Column("tokens/s", 9, 6, lambda s: "" if s.tokens_per_second is None else f"{s.tokens_per_second:,.0f}"),
            Column("seconds", 7, 7, lambda s: "" if s.seconds is None else f"{s.seconds:.1f}"),
            Column("left", 8, 3, lambda s: "" if self._left is None else clock(self._left)),
            Column("warnings", 8, 8, lambda s: str(self._warnings)),
        ]
        columns = [column for column in columns if not column.optional or column.cell(step)]
        while sum(column.width + 2 for column in columns) - 2 > self._console.width:
            columns.remove(max(columns, key=lambda column: column.rank))
        return columns

    def _show_note(self, text: str) -> None:
        lines = [wrapped for line in text.splitlines() for wrapped in self._wrapped(line, 9)]
        if len(lines) > LINES_OF_A_NOTE:
            lines = [*lines[: LINES_OF_A_NOTE - 1], "... (the rest is in the log)"]
        for line in lines:
            self._print(" " * 9 + line)

    def _bottom_line(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        parts: list[RenderableType] = [Spinner("line")]
        words = [f"{self._phase} {clock(self._now() - self._phase_started)}" if self._phase else "", self._detail]
        if self._progress is not None:
            parts.append(
                ProgressBar(self._progress.total, self._progress.done, width=max(10, self._console.width // 6))
            )
            words.append(f"{self._progress.done}/{self._progress.total} {self._progress.unit}")
        if self._left:
            words.append(f"{clock(self._left)} left")
        if self._warnings:
            words.append(warnings_of(self._warnings))
        for _ in parts:
            grid.add_column()
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_row(*parts, Text(printable("  ".join(filter(None, words)))))
        return grid


def _clipped(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."


class Outline:
    """Summarizes the events of a nested command for the enclosing command, which receives them through `tell`."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._phase = ""
        self._steps = TrainingSteps()

    def show(self, event: Event) -> None:
        """Pass on a summary of an event."""
        match event:
            case Phase():
                self._phase = event.name
                self._tell(Detail(event.name))
            case Part():
                self._tell(Detail(f"{self._phase}: {event.name}"))
            case Progress():
                self._tell(Detail(f"{self._phase}: {event.done} of {event.total} {event.unit}"))
            case Step():
                self._tell(Detail(summary(event, self._steps.left(event))))
            case Follow():
                self._steps = TrainingSteps()
            case Failure():
                self._tell(event)

    def close(self) -> None:
        """Do nothing: no output is pending."""

    def show_error(self, lines: Sequence[str]) -> None:
        """Pass on the error that ended the command."""
        self._tell(Failure("\n".join(lines)))
