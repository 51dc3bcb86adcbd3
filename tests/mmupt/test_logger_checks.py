"""Loggers without their package or login are reported before a run starts."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from verl.utils.tracking import Tracking

from mmupt.runtime import logger_checks
from mmupt.runtime.logger_checks import LOGGERS, Logger, problems_of_loggers

# As `find_spec` returns it for an installed package.
INSTALLED = SimpleNamespace(origin="/packages/tracker/__init__.py")


def test_every_logger_of_verl_is_known() -> None:
    assert set(LOGGERS) == {*Tracking.supported_backend, "tracking"}


@pytest.mark.parametrize(
    ("logger", "login"),
    [
        ("wandb", {"WANDB_MODE": "offline"}),
        ("wandb", {"WANDB_API_KEY": "key"}),
        ("tracking", {"WANDB_MODE": "disabled"}),
        ("swanlab", {"SWANLAB_MODE": "local"}),
        ("clearml", {"CLEARML_OFFLINE_MODE": "1"}),
        ("vemlp_wandb", {"VOLC_ACCESS_KEY_ID": "key"}),
    ],
)
def test_a_logger_needs_its_package_and_a_login(
    logger: str, login: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = {"HOME": str(tmp_path)}
    monkeypatch.setattr(logger_checks.importlib.util, "find_spec", lambda name: None)
    (problem,) = problems_of_loggers([logger, "console"], home | login)
    assert f"trainer.logger: {logger} needs the package" in problem and "not installed" in problem
    assert re.search(rf"run `\S+ -m uv pip install {LOGGERS[logger].module}`", problem)
    monkeypatch.setattr(logger_checks.importlib.util, "find_spec", lambda name: INSTALLED)
    (problem,) = problems_of_loggers(logger, home)
    assert f"trainer.logger: {logger} has no login" in problem
    assert not list(problems_of_loggers([logger], home | login))


def test_the_log_folder_of_a_tracker_does_not_count_as_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio_of_a_run").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LOGGERS, "trackio", Logger("trackio_of_a_run"))
    (problem,) = problems_of_loggers("trackio", {})
    assert "not installed" in problem


def test_a_login_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger_checks.importlib.util, "find_spec", lambda name: INSTALLED)
    (tmp_path / "keys").write_text("machine api.wandb.ai login user password key")
    assert not list(problems_of_loggers("wandb", {"HOME": "/nowhere", "NETRC": str(tmp_path / "keys")}))
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key")
    assert not list(problems_of_loggers("wandb", {"HOME": str(tmp_path)}))
