"""Fixtures of the data-set tests."""

from pathlib import Path
from typing import Any

import pytest

from mmupt_data import hub_reader


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a private cache of `datasets` and make the hub unreachable."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub_reader.HfApi, "dataset_info", unreachable)
