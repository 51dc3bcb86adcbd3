"""Console sessions: the screen shows events, the log has all other output, and errors take three lines."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from terminal_text import ESCAPE

from mmupt.console.session import Tail


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


# A small command that prints in every way, before and after its log file is known.
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


def test_the_log_has_the_output_of_all_processes_and_the_screen_shows_events(tmp_path: Path) -> None:
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


def test_verbose_prints_all_output_in_nested_commands_too(tmp_path: Path) -> None:
    command = [part.replace("verbose=False", "verbose=True") for part in example(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert {*HIDDEN, "a note", "after"} <= {*done.stdout.splitlines(), *done.stderr.splitlines()}
    assert not (tmp_path / "log").exists()
    inside = subprocess.run(
        example(tmp_path / "log"), capture_output=True, text=True, env=os.environ | {"MMUPT_CONSOLE": ""}
    )
    assert inside.stdout.splitlines() == done.stdout.splitlines()


@pytest.mark.parametrize(
    ("body", "status", "message"),
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
def test_an_error_takes_at_most_three_lines_and_the_log_has_the_traceback(
    body: str, status: int, message: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(example(tmp_path / "log", body), capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (status, message)
    assert ("Traceback" in (tmp_path / "log").read_text()) == ("ValueError" in body)


def test_the_cause_of_a_failed_child_process_is_shown_beside_its_status(tmp_path: Path) -> None:
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


def test_the_cause_of_a_failed_nested_command_is_shown_once_and_clipped(tmp_path: Path) -> None:
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


def test_an_error_before_the_log_is_known_is_shown_with_its_traceback(tmp_path: Path) -> None:
    code = "from mmupt.console import session\nwith session('mmupt x', False):\n    print('early')\n    1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: ZeroDivisionError: division by zero" in done.stderr
    assert "early" in done.stderr and "Traceback" in done.stderr


def on_terminal(command: list[str], columns: int, until: str = "", **environment: str) -> tuple[int, str]:
    """Run a command on a terminal, press Ctrl-C once it shows `until`, and return its status and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": str(columns), **environment})
        # Background processes may have inherited an ignored SIGINT.
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


def test_a_terminal_has_a_status_line_that_is_erased_at_the_end(tmp_path: Path) -> None:
    body = "import time; emit(Progress(1, 4, 'requests')); time.sleep(0.8)"
    status, shown = on_terminal(example(tmp_path / "log", body), 60)
    assert status == 0 and "work" in shown and "1/4 requests" in shown and "1 warning" in shown
    # The status line is erased before the next line.
    *_, last = ESCAPE.sub("", shown).strip().splitlines()
    assert last.strip() == "after"
    assert "by C" not in shown and "by C" in (tmp_path / "log").read_text()


def test_ctrl_c_ends_the_command_by_the_signal_and_says_how_to_continue(tmp_path: Path) -> None:
    status, shown = on_terminal(example(tmp_path / "log", "import time; time.sleep(60)"), 80, until="work")
    assert status == -signal.SIGINT
    assert "interrupted: run the same command again to continue" in shown and "Traceback" not in shown
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


def test_a_nested_command_has_its_own_log_and_no_screen(tmp_path: Path) -> None:
    inner = example(tmp_path / "inner", "emit(Note('only inside')); raise ValueError('inner failure')")
    body = f"print(subprocess.run({inner!r}).returncode)"
    done = subprocess.run(example(tmp_path / "outer", body), capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "mmupt example",
        "0:00  check",
        "a note",
        "0:00  work",
        "error: ValueError: inner failure",
        "in <string>, line 17, in <module>",
        "all output: inner",
        "| a | table |",
        "1 warning in the log",
        "after",
    ]
    assert "by C" in (tmp_path / "inner").read_text()
    assert (tmp_path / "outer").read_text().splitlines()[-2:] == ["1", "| a | table |"]
