"""One process at a time holds a lock, on file systems with and without flock."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from verl_ext import locks
from verl_ext.locks import exclusive_lock

CODE = """
import errno, fcntl, pathlib, sys
from verl_ext import locks
path, refuse = pathlib.Path(sys.argv[1]), int(sys.argv[2])
flock = fcntl.flock
def no_flock(descriptor, operation):
    if pathlib.Path(f"/proc/self/fd/{descriptor}").resolve() == path:
        raise OSError(refuse, "no locks here")
    flock(descriptor, operation)
if refuse:
    fcntl.flock = no_flock
with locks.exclusive_lock(path, wait=False):
    pass
"""


def in_another_process(path: Path, refuse: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE, path, str(refuse)], capture_output=True, text=True)


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_a_lock_is_held_by_one_process(tmp_path: Path, is_folder: bool) -> None:
    path = tmp_path / "lock"
    path.mkdir() if is_folder else path.touch()
    with exclusive_lock(path, wait=False):
        assert "BlockingIOError" in in_another_process(path).stderr
    assert in_another_process(path).returncode == 0


@pytest.mark.parametrize("refuse", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL])
def test_without_flock_one_process_of_this_machine_holds_the_lock(
    tmp_path: Path, refuse: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flock = tmp_path / "lock", fcntl.flock
    path.touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))

    def no_flock(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == path:
            raise OSError(refuse, "no locks here")
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", no_flock)
    with exclusive_lock(path, wait=False):
        assert f"{path}: this file system has no locks" in capsys.readouterr().out
        assert "BlockingIOError" in in_another_process(path, refuse).stderr
    assert in_another_process(path, refuse).returncode == 0


def test_an_error_of_the_fallback_lock_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locks.fcntl, "flock", no_flock)
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError), exclusive_lock(tmp_path, wait=False):
        pass


def test_other_file_system_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(locks.fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken disk"), exclusive_lock(tmp_path, wait=False):
        pass
