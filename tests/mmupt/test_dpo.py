"""What DPO refuses before a process of it starts, and when it need not start one."""

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
    """The commands of the processes that would have been started, of which each leaves a policy behind."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        commands.append(command)
        (Path(command[-1]) / "model").mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"beta": 0.0}, "beta must be a number above 0"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
        ({"processes": 2}, "processes must be 1 on the CPU"),
        ({"batch_size": 6, "processes": 2, "device": "cuda"}, "multiple of micro_batch_size x processes = 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SETTINGS, **changed)


@pytest.mark.parametrize(("installed", "said"), [(None, "none is installed"), ("0.27.0", r"0\.27\.0 is installed")])
def test_without_a_trl_that_can_it_says_how_to_get_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None, said: str
) -> None:
    monkeypatch.setattr(dpo, "trl_version", lambda: installed)
    with pytest.raises(ValueError, match=rf"{said}.*make setup.*requirements-baselines\.txt"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")


def test_the_trl_that_lies_apart_comes_before_the_one_that_verl_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("apart", "1.16.0"), ("packages", "0.27.0")):
        information = tmp_path / folder / f"trl-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: trl\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    found = []
    for folder in ("apart", "nowhere"):
        monkeypatch.setattr(dpo, "TRL_FOLDER", tmp_path / folder)
        found.append(trl_version())
    assert found == ["1.16.0", "0.27.0"]


def test_a_folder_with_another_training_is_refused(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    with pytest.raises(ValueError, match=r"dpo holds a training with other settings \(beta, model\): delete"):
        train_dpo(replace(SETTINGS, beta=0.5), "another/model", file, tmp_path / "dpo")
    write_pairs(file, [pair(2)])
    with pytest.raises(ValueError, match=r"other settings \(rows\)"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")


def test_a_pair_that_cannot_be_used_starts_nothing(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    write_pairs(file, [pair(rejected=None)])
    with pytest.raises(ValueError, match="id figure-0: rejected is null"):
        train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert started == []


def test_a_policy_that_is_there_is_not_trained_again(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    policy = train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo") == policy == tmp_path / "dpo" / "model"
    assert len(started) == 1


def test_checkpoints_that_were_cut_off_go_and_whole_ones_stay_until_the_policy_is_there(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "dpo" / "checkpoints"
    for name in ("checkpoint-1", "checkpoint-2"):
        (checkpoints / name).mkdir(parents=True)
    (checkpoints / "checkpoint-1" / "whole").touch()
    seen: list[str] = []

    def run(command: list[str], **options: Any) -> None:
        seen.extend(path.name for path in checkpoints.iterdir())

    monkeypatch.setattr(subprocess, "run", run)
    train_dpo(SETTINGS, MODEL, file, tmp_path / "dpo")
    assert seen == ["checkpoint-1"]
    assert not checkpoints.exists()


def test_several_processes_are_started_by_torchrun(file: Path, tmp_path: Path, started: list[list[str]]) -> None:
    train_dpo(replace(SETTINGS, processes=2, device="cuda"), MODEL, file, tmp_path / "dpo")
    (command,) = started
    assert "torch.distributed.run" in command and "--nproc-per-node=2" in command
