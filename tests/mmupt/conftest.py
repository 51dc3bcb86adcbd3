"""What the tests of the launcher share."""

import os
import shutil
from pathlib import Path

import pytest

from mmupt.training import recipe_run


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the model where the tiny recipe looks for it, and an environment to itself."""
    shutil.copytree("recipes/mmupt/tiny/model", tmp_path / "recipes/mmupt/tiny/model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(recipe_run, "count_gpus", lambda: 0)
    return tmp_path
