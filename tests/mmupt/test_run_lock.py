"""A run folder has one run at a time, and a new run cleans up only after a dead run of the same folder."""

import os
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest

from mmupt.runtime import run_lock
from mmupt.runtime.run_lock import LOCK, RUN_FOLDER_VARIABLE, exclusive_run, processes_of


def sleeper(run_folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, RUN_FOLDER_VARIABLE: str(run_folder)}
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)


@pytest.fixture
def dead_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a killed run: its lock names a process that no longer exists."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text(str(gone.pid))
    return tmp_path / "run"


def test_a_second_run_of_a_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, mmupt.runtime.run_lock as l\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with l.exclusive_run(folder, folder / 'log'): pass"
    )
    with exclusive_run(tmp_path, tmp_path / "log"):
        second = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
        assert f"{tmp_path} is in use by the run of process {os.getpid()}" in second.stderr
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 0


def test_only_processes_of_the_dead_run_are_ended(dead_run: Path) -> None:
    survivor, neighbour = sleeper(dead_run), sleeper(dead_run.parent / "other")
    try:
        with exclusive_run(dead_run, dead_run / "log"):
            assert not psutil.pid_exists(survivor.pid)
            assert neighbour.poll() is None
            assert [process.pid for process in processes_of(dead_run.parent / "other")] == [neighbour.pid]
    finally:
        neighbour.kill()


def test_only_the_ray_session_of_the_dead_run_is_removed(dead_run: Path) -> None:
    pid = (dead_run / LOCK).read_text()
    sessions = [dead_run.parent / "ray" / f"session_2026-01-01_{suffix}" for suffix in (f"1_{pid}", f"1_{pid}1", "1_1")]
    for session in sessions:
        (session / "logs").mkdir(parents=True)
    with exclusive_run(dead_run, dead_run / "log"):
        assert [session.exists() for session in sessions] == [False, True, True]


def test_only_unmapped_shared_memory_of_the_dead_run_is_removed(
    dead_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(run_lock, "SHARED_MEMORY", memory)
    log, now = dead_run / "log", time.time()
    log.touch()
    for file, age in ((dead_run / LOCK, 100), (log, 50)):
        os.utime(file, (now - age, now - age))
    ages = {
        "psm_before": 150,
        "psm_during": 70,
        "verl_weights_during": 70,
        "psm_mapped": 70,
        "psm_after": 10,
        "other": 70,
    }
    for name, age in ages.items():
        (memory / name).touch()
        os.utime(memory / name, (now - age, now - age))
    monkeypatch.setattr(run_lock, "_mapped", lambda: {memory / "psm_mapped"})
    with exclusive_run(dead_run, log):
        assert sorted(file.name for file in memory.iterdir()) == ["other", "psm_after", "psm_before", "psm_mapped"]


def test_a_mapped_segment_is_seen_as_mapped() -> None:
    segment = SharedMemory(create=True, size=4096)
    try:
        assert Path("/dev/shm") / segment.name in run_lock._mapped()
        segment.close()
        assert Path("/dev/shm") / segment.name not in run_lock._mapped()
    finally:
        segment.unlink()


def test_a_finished_run_empties_its_lock(tmp_path: Path) -> None:
    with exclusive_run(tmp_path, tmp_path / "log"):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    assert (tmp_path / LOCK).read_text() == ""
    assert psutil.pid_exists(os.getpid())
