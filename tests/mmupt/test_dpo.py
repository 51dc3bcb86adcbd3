"""Preparing DPO: settings and pairs that are refused, the version of TRL, and folders that are reused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preference_pairs import SETTINGS, pair, write_pairs

from mmupt.baselines import dpo
from mmupt.baselines.dpo import OLDEST_TRL, train_dpo, trl_version

MODEL = "recipes/mmupt/tiny/model"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dpo, "trl_version", lambda: OLDEST_TRL)
    return write_pairs(tmp_path / "pairs.parquet", [pair(0), pair(1)])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the training process by a stub that writes a policy; return a list that collects the commands."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        commands.append(command)
        (Path(command[-1]) / "model").mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"beta": 0.0}, "beta must be a number above 0"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
        ({"processes": 2}, "processes must be 1 on the CPU"),
        ({"batch_size": 6, "processes": 2, "device": "cuda"}, "multiple of micro_batch_size x processes = 4"),
    ],
)
def test_invalid_settings_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changed)


@pytest.mark.parametrize(("installed", "message"), [(None, "none is installed"), ("0.27.0", r"0\.27\.0 is installed")])
def test_a_missing_or_old_trl_is_an_error_with_the_fix(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None, message: str
) -> None:
    monkeypatch.setattr(dpo, "trl_version", lambda: installed)
    with pytest.raises(ValueError, match=rf"{message}.*make setup.*requirements-baselines\.txt"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")


def test_the_separate_trl_takes_precedence_over_verls_pinned_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("apart", "1.16.0"), ("packages", "0.27.0")):
        information = tmp_path / folder / f"trl-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: trl\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    versions = []
    for folder in ("apart", "nowhere"):
        monkeypatch.setattr(dpo, "TRL_FOLDER", tmp_path / folder)
        versions.append(trl_version())
    assert versions == ["1.16.0", "0.27.0"]


def test_a_folder_with_a_training_of_other_settings_or_rows_is_refused(
    file: Path, tmp_path: Path, started: list[list[str]]
) -> None:
    train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    with pytest.raises(ValueError, match=r"dpo holds a training with other settings \(beta, model\): delete"):
        train_dpo(replace(SETTINGS, beta=0.5), "another/model", file, tmp_path / "dpo")
    write_pairs(file, [pair(2)])
    with pytest.raises(ValueError, match=r"other settings \(rows\)"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")


def test_an_unusable_pair_is_refused_before_a_process_starts(
    file: Path, tmp_path: Path, started: list[list[str]]
) -> None:
    write_pairs(file, [pair(rejected=None)])
    with pytest.raises(ValueError, match="id figure-0: rejected is null"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert started == []


def test_a_finished_policy_is_not_trained_again(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    policy = train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo") == policy == tmp_path / "dpo" / "model"
    assert len(started) == 1


def test_incomplete_checkpoints_are_deleted_at_the_start_and_complete_checkpoints_at_the_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "dpo" / "checkpoints"
    for name in ("checkpoint-1", "checkpoint-2"):
        (checkpoints / name).mkdir(parents=True)
    (checkpoints / "checkpoint-1" / "whole").touch()
    left_at_start: list[str] = []

    def run(command: list[str], **options: Any) -> None:
        left_at_start.extend(path.name for path in checkpoints.iterdir())

    monkeypatch.setattr(subprocess, "run", run)
    train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert left_at_start == ["checkpoint-1"]
    assert not checkpoints.exists()


def test_several_processes_are_started_by_torchrun(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    train_dpo(replace(SETTINGS, processes=2, device="cuda"), MODEL, file, tmp_path / "dpo")
    (command,) = started
    assert "torch.distributed.run" in command and "--nproc-per-node=2" in command
