"""A launcher that tests kill at chosen moments and restart with the same command."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmupt.runtime.run_lock import processes_of

SECONDS = 300


class RestartedLauncher:
    """A launcher that is started repeatedly with the same command.

    Args:
        command: the command.
        log: file for the output of all starts.
        run_folders: run folders whose processes may outlive the launcher.
    """

    def __init__(self, command: Sequence[str], log: Path, run_folders: Sequence[Path]) -> None:
        self.command, self.log, self.run_folders = command, log, run_folders
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, start_new_session=True, stdout=log, stderr=log)

    def kill_once(self, condition: Callable[[], object]) -> None:
        """Start the launcher and kill it once a condition is true; its child processes stay alive."""
        self.start()
        assert self.process is not None
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        """Start the launcher, which must succeed."""
        self.start()
        assert self.process is not None
        assert self.process.wait(timeout=2 * SECONDS) == 0, self.log.read_text()[-3000:]

    def close(self) -> None:
        """Kill the launcher and all processes that killed launchers have left."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        for folder in self.run_folders:
            for process in processes_of(folder):
                process.kill()


def lines_of(file: Path) -> list[str]:
    """The complete lines of a file, without a truncated last line; [] if the file is missing."""
    return file.read_text().split("\n")[:-1] if file.is_file() else []
