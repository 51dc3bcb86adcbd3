"""What a command shows: events as lines, on terminals of any width and without one, and everything else in a log."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmupt.console.error_causes import find_cause
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
from mmupt.console.session import Tail
from mmupt.console.step_metrics import read_step

HEAD = Head({"recipe": "mmupt_tiny", "data": "4,096 questions " * 20, "writes to": "runs/mmupt_tiny"})
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


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
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 0.5
        return self.seconds


def drawn(events: Sequence[Event], terminal: bool = False, width: int | None = None) -> str:
    file = io.StringIO()
    screen = Screen("mmupt train mmupt_tiny", file, file, terminal, width, Clock())
    for event in events:
        screen.show(event)
    screen.close()
    return file.getvalue()


def test_without_a_terminal_a_run_of_twenty_steps_takes_at_most_sixty_plain_lines() -> None:
    lines = drawn(run_of(20)).splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert [int(found[1]) for line in lines if (found := re.match(r" +(\d+)/20 ", line))] == list(range(1, 21))


def test_a_row_has_the_figures_of_its_step_and_the_time_left() -> None:
    lines = drawn(
        [Warnings(3), Follow("f", 20), step(19, seconds=30.0), step(20, validation_accuracy=0.5)]
    ).splitlines()
    heading, first, second = (line.split() for line in lines[1:])
    assert "".join(heading) == "stepmajoritylabelacc.rewardacc.validationtokens/ssecondsleftwarnings"
    assert " ".join(first) == "19/20 61.2 % 80.0 % 70.0 % 12,346 30.0 0:30 3"
    assert " ".join(second) == "20/20 61.2 % 80.0 % 70.0 % 50.0 % 12,346 9.5 0:00 3"


def test_what_is_not_known_has_no_column() -> None:
    shown = drawn([Step(1, None, majority_ratio=0.5, seconds=2.0)])
    assert "majority" in shown and "label acc." not in shown and "reward acc." not in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_line_fits_into_a_terminal_and_no_step_is_missing(width: int) -> None:
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


def test_a_long_phase_tells_without_a_terminal_how_far_it_is() -> None:
    class Slow(Clock):
        def __call__(self) -> float:
            self.seconds += 10.0
            return self.seconds

    file = io.StringIO()
    screen = Screen("mmupt eval", file, file, False, now=Slow())
    screen.show(Phase("answer the questions"))
    for done in range(1001):
        screen.show(Progress(done, 1000, "requests"))
    shown = [line for line in file.getvalue().splitlines() if "of 1000 requests" in line]
    assert len(shown) == 9 and "100 of 1000 requests, " in shown[0] and shown[0].endswith(" left")


def test_the_time_left_counts_neither_what_was_done_before_nor_the_start_of_the_engine() -> None:
    class Still(Clock):
        def __call__(self) -> float:
            return self.seconds

    file, now = io.StringIO(), Still()
    screen = Screen("mmupt eval", file, file, False, now=now)
    screen.show(Phase("answer the questions"))
    for seconds, done in ((0.0, 500), (300.0, 501), (400.0, 701)):
        now.seconds = seconds
        screen.show(Progress(done, 1000, "requests"))
    assert file.getvalue().splitlines()[-1].strip() == "701 of 1000 requests, 2:30 left"


def test_what_a_long_phase_waits_for_is_named_with_and_without_a_terminal() -> None:
    events = [Phase("answer the questions"), Progress(0, 9, "requests"), Part("start the engine")]
    phase, part = drawn(events).splitlines()[1:]
    assert phase.endswith("  answer the questions") and re.fullmatch(r" +0:0\d    start the engine", part)
    outline_of: list[Event] = []
    outline = Outline(outline_of.append)
    for event in events:
        outline.show(event)
    assert outline_of[-1] == Detail("answer the questions: start the engine")


def test_a_command_that_runs_another_tells_without_a_terminal_now_and_then_what_that_one_does() -> None:
    class Minutes(Clock):
        def __call__(self) -> float:
            return self.seconds

    file, now = io.StringIO(), Minutes()
    screen = Screen("mmupt table", file, file, False, now=now)
    screen.show(Phase("mmupt_tiny, seed 1 (run 1 of 2)"))
    for second in range(24 * 3600 // 10):
        now.seconds = 10.0 * second
        screen.show(Detail(f"step {second}/8640, majority 61.2 %"))
    _, _, *shown = file.getvalue().splitlines()
    assert shown[0] == "   0:30    step 3/8640, majority 61.2 %"
    assert 20 < len(shown) < 40


def test_the_warnings_are_counted_where_no_step_counts_them() -> None:
    assert drawn([Phase("work"), Warnings(1)]).splitlines()[-1].strip() == "1 warning in the log"
    assert "in the log" not in drawn([Phase("work"), Warnings(2), *run_of(3)])


def test_a_step_of_a_training_without_votes_is_progress() -> None:
    shown: list[Event] = []
    outline = Outline(shown.append)
    for event in (Phase("train by SFT"), Follow("f", 4), Step(2, 4)):
        outline.show(event)
    assert shown == [Detail("train by SFT"), Detail("step 2/4")]
    assert "majority" not in drawn([Phase("train by SFT"), Follow("f", 4), Step(2, 4)])


def test_a_command_that_another_one_runs_tells_it_in_a_few_words() -> None:
    shown: list[Event] = []
    outline = Outline(shown.append)
    for event in (HEAD, Phase("evaluate"), Progress(3, 9, "requests"), step(18), Note("not for the other")):
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


def test_events_survive_the_file() -> None:
    for event in [*run_of(1), Detail("x\ny"), Warnings(2), Note("π\n\ud800")]:
        line = write_event(event)
        assert line.count("\n") == 1 and read_event(line) == event


def test_progress_counts_from_what_was_done_before_and_ends_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "events"
    file.touch()
    monkeypatch.setenv("MMUPT_CONSOLE", str(file))
    assert list(counted("abc", 2, 5, "letters")) == ["a", "b", "c"]
    shown = [read_event(line) for line in file.read_text().splitlines()]
    assert shown == [Progress(2, 5, "letters"), Progress(5, 5, "letters")]


def test_the_metrics_of_a_step_are_those_that_verl_logs() -> None:
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


@given(st.lists(st.binary(max_size=9)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tail_returns_every_whole_line_once_however_it_is_written(tmp_path: Path, pieces: list[bytes]) -> None:
    file = tmp_path / "log"
    file.unlink(missing_ok=True)
    tail, seen = Tail(file), []
    assert tail.lines() == []
    for piece in pieces:
        with file.open("ab") as opened:
            opened.write(piece)
        seen += tail.lines()
    assert seen == b"".join(pieces).split(b"\n")[:-1]


RAY = """\
(TaskRunnerV1 pid=7) step:1 - vote/majority_ratio:0.5
Traceback (most recent call last):
  File "/x/recipes/mmupt/training/recipe_run.py", line 189, in run_trainer
    run_ppo(config)
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7, ip=10.0.0.1)
  File "/x/lib/python3.11/site-packages/verl/trainer/main_ppo.py", line 150, in run
    self.trainer.fit(self.agent_loop_manager)
  File "/x/lib/python3.11/site-packages/verl/trainer/ppo/ray.py", line 33, in fit
    raise ValueError("no such key")
    ~~~~~~~~^^
ValueError: no such key
"""
FORWARDED = """\
\x1b[36m(WorkerDict pid=8)\x1b[0m Traceback (most recent call last):
\x1b[36m(WorkerDict pid=8)\x1b[0m   File "/x/site-packages/torch/nn.py", line 3, in step
\x1b[36m(AgentLoop pid=9)\x1b[0m INFO: all is well
\x1b[36m(WorkerDict pid=8)\x1b[0m torch.OutOfMemoryError: CUDA out of memory
\x1b[36m(AgentLoop pid=9)\x1b[0m INFO: still well
"""
PYDANTIC = """\
Traceback (most recent call last):
  File "<string>", line 1, in <module>
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, No sleep mode
"""


@pytest.mark.parametrize(
    ("log", "cause", "where"),
    [
        (RAY, "ValueError: no such key", "verl/trainer/ppo/ray.py, line 33, in fit"),
        (FORWARDED, "torch.OutOfMemoryError: CUDA out of memory", "torch/nn.py, line 3, in step"),
        (
            PYDANTIC,
            "pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, No sleep mode",
            "<string>, line 1, in <module>",
        ),
        (f"{RAY}error: runs/x has no checkpoint\n", "runs/x has no checkpoint", None),
        (f"error: an earlier one\n{RAY}", "ValueError: no such key", "verl/trainer/ppo/ray.py, line 33, in fit"),
        (
            "(TaskRunnerV1 pid=7) ERROR:2026-11-27 13:06:13,642:watchdog: the run ends: died: WorkerDict_0. "
            'The trainer stands at\n(TaskRunnerV1 pid=7)   File "fit.py", line 3, in fit\n'
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\nray.exceptions.ActorDiedError: gone\n',
            "died: WorkerDict_0",
            None,
        ),
        (
            'Traceback\n  File "a.py", line 1, in f\nray.exceptions.ActorDiedError: The actor died.\n\tclass_name: A\n'
            "\tpid: 7\nIts process was killed.\n",
            "ray.exceptions.ActorDiedError: The actor died. Its process was killed.",
            "a.py, line 1, in f",
        ),
        ("one\ntwo\n\n", "two", None),
        ("", "it printed nothing", None),
    ],
)
def test_the_cause_of_an_error_is_found_in_a_log(log: str, cause: str, where: str | None) -> None:
    assert find_cause(log) == (cause, where)


@given(st.text())
def test_any_log_has_a_cause_on_one_line(log: str) -> None:
    cause, _ = find_cause(log)
    assert cause and "\n" not in cause


def test_a_tail_loses_nothing_while_another_process_writes(tmp_path: Path) -> None:
    file = tmp_path / "log"
    code = f"""
import sys
with open({str(file)!r}, "w", buffering=7) as out:
    for number in range(20_000):
        out.write(f"line {{number}}\\n")
"""
    tail, seen = Tail(file), list[bytes]()
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        while writer.poll() is None:
            seen += tail.lines()
    seen += tail.lines()
    assert seen == [b"line %d" % number for number in range(20_000)]


# A command in miniature: what it prints by all ways, before and after it knows its log.
COMMAND = """
import ctypes, os, subprocess, sys
from pathlib import Path
from mmupt.console import *
with session("mmupt example", verbose=False):
    print("early")
    emit(Phase("check"))
    log_to(Path({log!r}))
    print("printed")
    print("WARNING: to standard error", file=sys.stderr)
    os.write(1, b"by descriptor\\n")
    ctypes.CDLL(None).puts(b"by C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["sh", "-c", "echo of a child; echo its error >&2"], check=True)
    tell("a note")
    emit(Phase("work"))
    {body}
    show_result("| a | table |")
print("after", flush=True)
"""
HIDDEN = ("early", "printed", "WARNING: to standard error", "by descriptor", "by C", "of a child", "its error")


def example(log: Path, body: str = "pass") -> list[str]:
    return [sys.executable, "-c", COMMAND.format(log=str(log), body=body)]


def test_what_all_processes_print_is_in_the_log_and_the_events_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "train.log"
    done = subprocess.run(example(log), capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "mmupt example",
        "   0:00  check",
        "         a note",
        "   0:00  work",
        "| a | table |",
        "         1 warning in the log",
        "after",
    ]
    assert [line for line in log.read_text().splitlines() if line in HIDDEN] == [*HIDDEN]
    assert {"a note", "| a | table |"} <= {*log.read_text().splitlines()}
    subprocess.run(example(log), check=True, stdout=subprocess.DEVNULL)
    assert log.read_text().count("by C\n") == 2


def test_with_verbose_everything_is_printed(tmp_path: Path) -> None:
    command = [part.replace("verbose=False", "verbose=True") for part in example(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert {*HIDDEN, "a note", "after"} <= {*done.stdout.splitlines(), *done.stderr.splitlines()}
    assert not (tmp_path / "log").exists()
    inside = subprocess.run(
        example(tmp_path / "log"), capture_output=True, text=True, env=os.environ | {"MMUPT_CONSOLE": ""}
    )
    assert inside.stdout.splitlines() == done.stdout.splitlines()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (
            "raise ValueError('no such key')",
            1,
            ["error: ValueError: no such key", "  in <string>, line 17, in <module>", "  all output: log"],
        ),
        ("sys.exit('error: set another key')", 1, ["error: set another key", "  all output: log"]),
        ("sys.exit(3)", 3, ["  all output: log"]),
        ("sys.exit()", 0, []),
    ],
)
def test_an_error_is_its_cause_in_three_lines_and_the_log_has_the_rest(
    body: str, status: int, said: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(example(tmp_path / "log", body), capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (status, said)
    assert ("Traceback" in (tmp_path / "log").read_text()) == ("ValueError" in body)


def test_of_a_process_that_failed_the_cause_is_shown_and_not_only_its_status(tmp_path: Path) -> None:
    body = """
    try:
        subprocess.run([sys.executable, "-c", "import nothing_of_that_name"], check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: the evaluation ended with status {error.returncode}")
"""
    done = subprocess.run(example(tmp_path / "log", body), capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.splitlines() == [
        "error: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        "  in <string>, line 1, in <module>",
        "error: the evaluation ended with status 1",
        "  all output: log",
    ]


def test_of_a_command_that_failed_the_cause_is_shown_once_on_lines_that_can_be_read(tmp_path: Path) -> None:
    inner = example(tmp_path / "inner", "raise ValueError('no such key ' * 100)")
    body = f"""
    try:
        subprocess.run({inner!r}, check=True)
    except subprocess.CalledProcessError as error:
        sys.exit("error: the example failed, see above")
"""
    done = subprocess.run(example(tmp_path / "outer", body), capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.splitlines() == ["error: the example failed, see above", "  all output: outer"]
    cause, where, log = [line.strip() for line in done.stdout.splitlines()][-4:-1]
    assert cause.startswith("error: ValueError: no such key no such key") and len(cause) < 200
    assert (where, log) == ("in <string>, line 17, in <module>", "all output: inner")


def test_an_error_before_there_is_a_log_is_shown_whole(tmp_path: Path) -> None:
    code = "from mmupt.console import session\nwith session('mmupt x', False):\n    print('early')\n    1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: ZeroDivisionError: division by zero" in done.stderr
    assert "early" in done.stderr and "Traceback" in done.stderr


def on_terminal(command: list[str], columns: int, until: str = "", **environment: str) -> tuple[int, str]:
    """Run a command on a terminal, with Ctrl-C once it shows `until`; returns its status and what it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": str(columns), **environment})
        # A program that was started in the background may ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(command[0], command)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
        if until and until.encode() in shown:
            os.write(terminal, b"\x03")
            until = ""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_on_a_terminal_the_last_line_lives_and_leaves_the_same_lines(tmp_path: Path) -> None:
    body = "import time; emit(Progress(1, 4, 'requests')); time.sleep(0.8)"
    status, shown = on_terminal(example(tmp_path / "log", body), 60)
    assert status == 0 and "work" in shown and "1/4 requests" in shown and "1 warning" in shown
    # Nothing of it stays: the bar is erased before the next line.
    *_, last = ESCAPE.sub("", shown).strip().splitlines()
    assert last.strip() == "after"
    assert "by C" not in shown and "by C" in (tmp_path / "log").read_text()


def test_ctrl_c_ends_it_by_the_signal_and_says_that_the_command_continues(tmp_path: Path) -> None:
    status, shown = on_terminal(example(tmp_path / "log", "import time; time.sleep(60)"), 80, until="work")
    assert status == -signal.SIGINT
    assert "interrupted: the same command continues" in shown and "Traceback" not in shown
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


def test_a_command_inside_another_has_its_own_log_and_no_screen(tmp_path: Path) -> None:
    inner = example(tmp_path / "inner", "emit(Note('only inside')); raise ValueError('of the inner one')")
    body = f"print(subprocess.run({inner!r}).returncode)"
    done = subprocess.run(example(tmp_path / "outer", body), capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "mmupt example",
        "0:00  check",
        "a note",
        "0:00  work",
        "error: ValueError: of the inner one",
        "in <string>, line 17, in <module>",
        "all output: inner",
        "| a | table |",
        "1 warning in the log",
        "after",
    ]
    assert "by C" in (tmp_path / "inner").read_text()
    assert (tmp_path / "outer").read_text().splitlines()[-2:] == ["1", "| a | table |"]
