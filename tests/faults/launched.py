"""A command that is killed once something is seen, and started again until it is through. No test lives here."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmupt.runtime.run_lock import processes_of

SECONDS = 300


class Launched:
    """A launcher that is started by the same command again and again.

    `log` gets what it prints. `run_folders` are those in which it, or what it starts, may leave processes behind.
    """

    def __init__(self, command: Sequence[str], log: Path, run_folders: Sequence[Path]) -> None:
        self.command, self.log, self.run_folders = command, log, run_folders
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, start_new_session=True, stdout=log, stderr=log)

    def kill_once(self, seen: Callable[[], object]) -> None:
        """Start, and kill the launcher once something is seen; what it had started lives on."""
        self.start()
        assert self.process is not None
        deadline = time.monotonic() + SECONDS
        while not seen():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()

    def finish(self) -> None:
        self.start()
        assert self.process is not None
        assert self.process.wait(timeout=2 * SECONDS) == 0, self.log.read_text()[-3000:]

    def close(self) -> None:
        """End the launcher, and all that killed ones have left."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        for folder in self.run_folders:
            for process in processes_of(folder):
                process.kill()


def lines_of(file: Path) -> list[str]:
    """The whole lines of a file that may be missing."""
    return file.read_text().split("\n")[:-1] if file.is_file() else []
