"""Locks a run folder, and cleans up after a killed run of the same folder.

The cleanup recognizes processes by the environment variable `MMUPT_RUN_FOLDER`, which all processes of a run inherit;
Ray sessions by the launcher's process id in their name; and shared memory segments by their owner (this user), their
creation time (during the dead run), and not being mapped by any process of this machine or container.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path

import psutil

from mmupt.hardware import ray_folder
from verl_ext.locks import exclusive_lock

RUN_FOLDER_VARIABLE = "MMUPT_RUN_FOLDER"
LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")
# Segment names of Python, and of veRL's weight transfer.
SEGMENTS = ("psm_*", "verl_weights_*")
# A dead run is assumed to have created nothing later than this many seconds after the last write to its log.
SECONDS_AFTER_LOG = 5.0


@contextmanager
def exclusive_run(run_folder: Path, log: Path) -> Iterator[None]:
    """Hold the lock of a run folder, after cleaning up what a dead run of the same folder left behind.

    Args:
        run_folder: created if missing.
        log: the file that a run writes to continuously.

    Raises:
        BlockingIOError: a run of the folder is alive; the message has its process id.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = run_folder / LOCK
    # Opening for append keeps the modification time, which is the start of the last run.
    lock.open("a").close()
    launcher = lock.read_text()
    with ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(lock, wait=False))
        except BlockingIOError:
            raise BlockingIOError(f"{run_folder} is in use by the run of process {launcher}") from None
        if launcher:
            end_processes(run_folder)
            _remove_ray_sessions(launcher)
            _remove_shared_memory(lock.stat().st_mtime, log)
        lock.write_text(str(os.getpid()))
        yield
        lock.write_text("")


def processes_of(run_folder: Path) -> list[psutil.Process]:
    """Return the processes of the run of a folder, without this process."""
    return [
        process
        for process in psutil.process_iter(["environ"], ad_value={})
        if process.pid != os.getpid() and process.info["environ"].get(RUN_FOLDER_VARIABLE) == str(run_folder)
    ]


def end_processes(run_folder: Path) -> None:
    """Kill the processes of a dead run of a folder, and print each; call it while holding the folder's lock."""
    survivors = processes_of(run_folder)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            print(f"ending process {process.pid} ({process.name()}), left by a dead run of {run_folder}")
            process.kill()
    psutil.wait_procs(survivors, timeout=10)


def _remove_ray_sessions(launcher: str) -> None:
    if psutil.pid_exists(int(launcher)):
        # The id was reused by another process, which may own the session.
        return
    for session in ray_folder().glob(f"session_*_{launcher}"):
        print(f"removing {session}, left by a dead run")
        shutil.rmtree(session, ignore_errors=True)


def _remove_shared_memory(started: float, log: Path) -> None:
    ended = (log.stat().st_mtime if log.is_file() else started) + SECONDS_AFTER_LOG
    made = set()
    for segment in chain.from_iterable(map(SHARED_MEMORY.glob, SEGMENTS)):
        with suppress(FileNotFoundError):
            state = segment.stat()
            if state.st_uid == os.getuid() and started <= state.st_mtime <= ended:
                made.add(segment)
    for segment in made - _mapped():
        print(f"removing {segment}, left by a dead run")
        segment.unlink(missing_ok=True)


def _mapped() -> set[Path]:
    areas = chain.from_iterable(one.info["memory_maps"] for one in psutil.process_iter(["memory_maps"], ad_value=()))
    return {Path(area.path) for area in areas if area.path.startswith(f"{SHARED_MEMORY}/")}
