"""Ending a benchmark ends the command that it observes."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.observed_command import observed, steps_of

CHILD = "import time; print('started', flush=True); time.sleep(600)"
PARENT = f"""
import sys
from benchmarks.observed_command import observed
with observed([sys.executable, "-c", {CHILD!r}]) as command:
    command.stdout.readline()
    print(command.pid, flush=True)
    command.wait()
"""


def test_sigterm_ends_the_command_as_well() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.terminate()
        assert parent.wait(timeout=60) == 128 + signal.SIGTERM
    assert not child.is_running()


def test_a_failure_ends_the_command_and_restores_the_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), observed([sys.executable, "-c", CHILD]) as command:
        assert command.stdout is not None and command.stdout.readline() == b"started\n"
        raise ZeroDivisionError
    assert command.returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_caller_gets_output_and_status_of_the_command() -> None:
    code = "import sys; print('out'); sys.exit('error')"
    with observed([sys.executable, "-c", code]) as command:
        assert command.stdout is not None
        assert sorted(command.stdout) == [b"error\n", b"out\n"]
        assert command.wait() == 1


def test_steps_are_read_from_verls_console_logger(capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('step:1 - loss:0.5'); print('global_step:7 - x'); print('step:2 - loss:0.25')"
    with observed([sys.executable, "-c", code]) as command:
        assert list(steps_of(command)) == [1, 2]
    assert capfd.readouterr().out.splitlines() == ["step:1 - loss:0.5", "global_step:7 - x", "step:2 - loss:0.25"]
