"""One run a folder: a lock while it lives, and an end to whatever a killed run of the same folder has left behind.

Processes are recognised by the environment variable `MMUPT_RUN_FOLDER`, which all processes of a run inherit; Ray
sessions by the process id of the launcher, which is part of their name; segments of shared memory by having been made
by this user during the dead run and being mapped by no process of this machine or container any more.
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
# As Python names segments, and veRL's weight transfer.
SEGMENTS = ("psm_*", "verl_weights_*")
# A dead run's last sign of life is its log; whatever it made, it made at most so many seconds later.
SECONDS_AFTER_LOG = 5.0


@contextmanager
def exclusive_run(run_folder: Path, log: Path) -> Iterator[None]:
    """Hold the lock of a run folder, after ending what a dead run of the same folder has left.

    `log` is the file that a run keeps writing to. Raises BlockingIOError, with the process id, when a run is alive.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = run_folder / LOCK
    # Not touched: its time is that of the run that has last held it.
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
    """Return the processes of the run of a folder, without the calling one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and process.environ().get(RUN_FOLDER_VARIABLE) == str(run_folder):
                found.append(process)
    return found


def end_processes(run_folder: Path) -> None:
    """End the processes of a dead run of a folder, and say so; only who holds its lock knows that it is dead."""
    survivors = processes_of(run_folder)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            print(f"ending process {process.pid} ({process.name()}), left by a dead run of {run_folder}")
            process.kill()
    psutil.wait_procs(survivors, timeout=10)


def _remove_ray_sessions(launcher: str) -> None:
    if psutil.pid_exists(int(launcher)):
        # The number has been given to another process, whose session it may be.
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
    mapped = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            mapped |= {Path(area.path) for area in process.memory_maps() if area.path.startswith(f"{SHARED_MEMORY}/")}
    return mapped
