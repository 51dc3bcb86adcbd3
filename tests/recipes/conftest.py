"""What the tests of the launcher share."""

import os
import shutil
from pathlib import Path

import pytest

from recipes.mmupt import train


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the model where the tiny recipe looks for it, and an environment to itself."""
    shutil.copytree("recipes/mmupt/tiny/model", tmp_path / "recipes/mmupt/tiny/model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(train, "count_gpus", lambda: 0)
    return tmp_path
