"""Fixtures of the launcher's tests."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mmupt.training import recipe_run
from mmupt_data.figure_task import write_figures
from verl_ext import import_check

_ask_child = import_check._ask_child
_answers: dict[tuple[str, str], tuple[list[Any], str]] = {}


def _ask_child_once(request: str, variables: str, search: str) -> tuple[list[Any], str]:
    """Cache answers by code: `variables` differ between tests only in their run folders."""
    if (request, search) not in _answers:
        _answers[request, search] = _ask_child(request, variables, search)
    return _answers[request, search]


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the tiny recipe, drawn once per session because it takes seconds."""
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, figures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder that has the tiny recipe's model and data, with a private copy of the environment."""
    shutil.copytree("recipes/mmupt/tiny/model", tmp_path / "recipes/mmupt/tiny/model")
    shutil.copytree(figures, tmp_path / "datasets/figures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(recipe_run, "count_gpus", lambda: 0)
    monkeypatch.setattr(import_check, "_ask_child", _ask_child_once)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the rendering of plots, which takes a second each."""
    monkeypatch.setattr(Figure, "savefig", lambda self, image, format: image.write(b"\x89PNG"))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test of `mmupt table` that starts a training."""
    monkeypatch.setattr("mmupt.training.recipe_table.train", lambda *_: pytest.fail("trained"))
