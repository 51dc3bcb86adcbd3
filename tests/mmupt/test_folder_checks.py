"""Folders in which sockets or Ray's workers would fail are reported before a run starts."""

import tempfile
from pathlib import Path

import pytest

from mmupt.runtime.folder_checks import problems_of_sockets, problems_of_working_directory


def test_a_temporary_folder_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (problem,) = problems_of_sockets({})
    assert "bytes too long for the sockets in it: set TMPDIR or RAY_TMPDIR to a shorter folder" in problem
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert not list(problems_of_sockets({}))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    (problem,) = problems_of_sockets({})
    assert "bytes too long for the sockets in it: set TMPDIR or VLLM_RPC_BASE_PATH" in problem
    assert not list(problems_of_sockets({"VLLM_RPC_BASE_PATH": "/tmp"}))


def test_the_length_limit_accepts_the_longest_socket_path_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for length, fits in ((39, True), (40, False)):
        monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * (length - 5)}")
        assert (not list(problems_of_sockets({}))) == fits


def test_a_module_in_the_working_directory_that_hides_a_library_from_workers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The folder of prepared data sets is not a package, so it hides nothing.
    (tmp_path / "datasets").mkdir()
    for package in ("tests", "mine"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for file in ("my_reward.py", "test.py"):
        (tmp_path / file).touch()
    assert not list(problems_of_working_directory())
    (tmp_path / "datasets/__init__.py").touch()
    (tmp_path / "numpy.py").touch()
    hidden = "".join(problems_of_working_directory())
    assert "datasets/__init__.py would hide" in hidden and "numpy.py would hide" in hidden and "rename it" in hidden


def test_a_module_in_the_working_directory_that_this_process_imports_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "numpy.py").touch()
    assert not list(problems_of_working_directory())
