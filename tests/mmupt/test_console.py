"""The screen draws events as lines, on terminals of any width and without a terminal."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from terminal_text import ESCAPE

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
    counted,
    read_event,
    write_event,
)
from mmupt.console.screen import Outline, Screen, clock
from mmupt.console.step_metrics import read_step

HEAD = Head({"recipe": "mmupt_tiny", "data": "4,096 questions " * 20, "writes to": "runs/mmupt_tiny"})


def step(number: int, **known: float) -> Step:
    measured = {"majority_ratio": 0.612, "reward_accuracy": 0.7, "label_accuracy": 0.8, "tokens_per_second": 12345.6}
    return Step(number, 20, **{"seconds": 9.5, **measured, **known})


def run_of(steps: int) -> list[Event]:
    phases = ("check the recipe", "start Ray", "load the model", "start the engine", "first validation")
    trained = [step(n, **({"validation_accuracy": 0.9} if n % 5 == 0 else {})) for n in range(1, steps + 1)]
    return [
        Phase("prepare"),
        HEAD,
        *map(Phase, phases),
        Follow("metrics.jsonl", steps),
        Step(0, steps, validation_accuracy=0.795),
        Phase("train"),
        *trained,
        Phase("evaluate the policy before training"),
        *(Progress(n, 1024, "requests") for n in range(0, 1025, 8)),
        Result("| | before | after |\n|---|---|---|"),
    ]


class Clock:
    """A clock that advances by `tick` seconds at each call."""

    def __init__(self, tick: float = 0.0) -> None:
        self.seconds, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.seconds += self.tick
        return self.seconds


def drawn(events: Sequence[Event], terminal: bool = False, width: int | None = None) -> str:
    file = io.StringIO()
    screen = Screen("mmupt train mmupt_tiny", file, file, terminal, width, Clock(tick=0.5))
    for event in events:
        screen.show(event)
    screen.close()
    return file.getvalue()


def test_twenty_steps_take_at_most_sixty_lines_of_plain_text() -> None:
    lines = drawn(run_of(20)).splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert [int(found[1]) for line in lines if (found := re.match(r" +(\d+)/20 ", line))] == list(range(1, 21))


def test_a_row_has_the_metrics_of_its_step_and_the_remaining_time() -> None:
    lines = drawn(
        [Warnings(3), Follow("f", 20), step(19, seconds=30.0), step(20, validation_accuracy=0.5)]
    ).splitlines()
    heading, first, second = (line.split() for line in lines[1:])
    assert "".join(heading) == "stepmajoritylabelacc.rewardacc.validationtokens/ssecondsleftwarnings"
    assert " ".join(first) == "19/20 61.2 % 80.0 % 70.0 % 12,346 30.0 0:30 3"
    assert " ".join(second) == "20/20 61.2 % 80.0 % 70.0 % 50.0 % 12,346 9.5 0:00 3"


def test_a_name_or_a_response_cannot_control_the_terminal() -> None:
    hostile = "a\x1b[2Jb\x1b]0;title\x07\x9b"
    shown = drawn([Phase(hostile), Note(hostile), Failure(hostile), Result(f"{hostile}\nnext")])
    assert not set(shown) & {"\x1b", "\x07", "\x9b"} and "a?[2Jb" in shown and "\nnext" in shown


def test_unknown_metrics_have_no_column() -> None:
    shown = drawn([Step(1, None, majority_ratio=0.5, seconds=2.0)])
    assert "majority" in shown and "label acc." not in shown and "reward acc." not in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_line_fits_the_terminal_and_every_step_has_a_row(width: int) -> None:
    shown = drawn([*run_of(20), Note("a warning " * 50), Detail("x" * 500)], terminal=True, width=width)
    lines = ESCAPE.sub("", shown).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= width
    assert sum(bool(re.match(r" +\d+/20 ", line)) for line in lines) == 20
    if width >= 60:
        assert any("majority" in line and "left" in line and "validation" in line for line in lines)


def test_a_terminal_has_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[;m]")

    def with_error() -> str:
        file = io.StringIO()
        screen = Screen("mmupt train", file, file, True, 80)
        screen.close()
        screen.show_error(["error: it failed"])
        return file.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colours.search(with_error())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours.search(with_error()) and "error: it failed" in with_error()


def test_plain_text_reports_the_progress_of_a_long_phase() -> None:
    file = io.StringIO()
    screen = Screen("mmupt eval", file, file, False, now=Clock(tick=10.0))
    screen.show(Phase("answer the questions"))
    for done in range(1001):
        screen.show(Progress(done, 1000, "requests"))
    shown = [line for line in file.getvalue().splitlines() if "of 1000 requests" in line]
    assert len(shown) == 9 and "100 of 1000 requests, " in shown[0] and shown[0].endswith(" left")


def test_the_remaining_time_excludes_earlier_items_and_the_start_of_the_engine() -> None:
    file, now = io.StringIO(), Clock()
    screen = Screen("mmupt eval", file, file, False, now=now)
    screen.show(Phase("answer the questions"))
    for seconds, done in ((0.0, 500), (300.0, 501), (400.0, 701)):
        now.seconds = seconds
        screen.show(Progress(done, 1000, "requests"))
    assert file.getvalue().splitlines()[-1].strip() == "701 of 1000 requests, 2:30 left"


def test_a_part_of_a_phase_is_named_with_and_without_a_terminal() -> None:
    events = [Phase("answer the questions"), Progress(0, 9, "requests"), Part("start the engine")]
    phase, part = drawn(events).splitlines()[1:]
    assert phase.endswith("  answer the questions") and re.fullmatch(r" +0:0\d    start the engine", part)
    outline_of: list[Event] = []
    outline = Outline(outline_of.append)
    for event in events:
        outline.show(event)
    assert outline_of[-1] == Detail("answer the questions: start the engine")


def test_plain_text_reports_a_nested_command_in_growing_intervals() -> None:
    file, now = io.StringIO(), Clock()
    screen = Screen("mmupt table", file, file, False, now=now)
    screen.show(Phase("mmupt_tiny, seed 1 (run 1 of 2)"))
    for second in range(24 * 3600 // 10):
        now.seconds = 10.0 * second
        screen.show(Detail(f"step {second}/8640, majority 61.2 %"))
    _, _, *shown = file.getvalue().splitlines()
    assert shown[0] == "   0:30    step 3/8640, majority 61.2 %"
    assert 20 < len(shown) < 40


def test_the_number_of_warnings_is_the_last_line_unless_rows_of_steps_show_it() -> None:
    assert drawn([Phase("work"), Warnings(1)]).splitlines()[-1].strip() == "1 warning in the log"
    assert "in the log" not in drawn([Phase("work"), Warnings(2), *run_of(3)])


def test_a_training_step_without_votes_is_shown_as_progress() -> None:
    shown: list[Event] = []
    outline = Outline(shown.append)
    for event in (Phase("train by SFT"), Follow("f", 4), Step(2, 4)):
        outline.show(event)
    assert shown == [Detail("train by SFT"), Detail("step 2/4")]
    assert "majority" not in drawn([Phase("train by SFT"), Follow("f", 4), Step(2, 4)])


def test_a_nested_command_summarizes_its_events() -> None:
    shown: list[Event] = []
    outline = Outline(shown.append)
    for event in (HEAD, Phase("evaluate"), Progress(3, 9, "requests"), step(18), Note("not passed on")):
        outline.show(event)
    outline.show_error(["error: it failed"])
    assert shown == [
        Detail("evaluate"),
        Detail("evaluate: 3 of 9 requests"),
        Detail("step 18/20, majority 61.2 %, 0:19 left"),
        Failure("error: it failed"),
    ]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36061, "10:01:01")])
def test_seconds_are_shown_as_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_events_survive_a_round_trip_through_json() -> None:
    for event in [*run_of(1), Detail("x\ny"), Warnings(2), Note("π\n\ud800")]:
        line = write_event(event)
        assert line.count("\n") == 1 and read_event(line) == event


def test_progress_starts_at_the_earlier_items_and_ends_with_all_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "events"
    file.touch()
    monkeypatch.setenv("MMUPT_CONSOLE", str(file))
    assert list(counted("abc", 2, 5, "letters")) == ["a", "b", "c"]
    shown = [read_event(line) for line in file.read_text().splitlines()]
    assert shown == [Progress(2, 5, "letters"), Progress(5, 5, "letters")]


def test_a_step_is_read_from_the_metrics_that_verl_logs() -> None:
    data = {
        "vote/majority_ratio": 0.5,
        "vote/label_accuracy": None,
        "vote/reward_accuracy": 0.25,
        "val-core/figures/acc/mean@1": 0.9,
        "val-core/other set/acc/mean@4": 0.7,
        "val-core/figures/acc/best@4/mean": 1.0,
        "perf/total_num_tokens": 3000,
        "perf/throughput": 1.0,
        "timing_s/step": 10.0,
        "timing_s/testing": 5.0,
    }
    assert read_step(json.dumps({"step": 7, "data": data}), 20) == Step(7, 20, 0.5, None, 0.25, 0.8, 300.0, 15.0)
    before = {"val-core/figures/acc/mean@1": 0.5}
    assert read_step(json.dumps({"step": 0, "data": before}), None) == Step(0, None, validation_accuracy=0.5)
