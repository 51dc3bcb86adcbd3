"""A hub name, model folder, run or checkpoint becomes a model that vLLM loads; a checkpoint is merged only once."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmupt.runtime import export as module
from mmupt.runtime.export import make_readable, merge, model_folder, restore_expert_layout

CONFIG = '{"model_type": "qwen2_5_vl"}'


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Checkpoints that a simulated merger has merged, in order."""
    checkpoints: list[str] = []

    def run(command: list[str], check: bool) -> None:
        assert check
        checkpoints.append(command[command.index("--local_dir") + 1])
        target = Path(command[command.index("--target_dir") + 1])
        target.mkdir(parents=True, exist_ok=True)
        (target / "config.json").write_text(CONFIG)

    monkeypatch.setattr(module.subprocess, "run", run)
    return checkpoints


def test_a_hub_name_and_a_model_folder_are_used_unchanged(tmp_path: Path, merged: list[str]) -> None:
    (tmp_path / "config.json").touch()
    assert model_folder("Qwen/Qwen2.5-VL-7B-Instruct", tmp_path / "out") == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert model_folder(str(tmp_path), tmp_path / "out") == str(tmp_path)
    assert merged == []


def test_a_run_folder_gives_its_exported_policy(tmp_path: Path, merged: list[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert model_folder(str(tmp_path), tmp_path / "out") == str(tmp_path / "model")
    assert merged == []


@pytest.mark.parametrize("checkpoint", ["global_step_5", "global_step_5/actor"])
def test_a_checkpoint_is_merged_into_the_output_only_once(tmp_path: Path, merged: list[str], checkpoint: str) -> None:
    actor = tmp_path / "global_step_5" / "actor"
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").touch()
    for _ in range(2):
        assert model_folder(str(tmp_path / checkpoint), tmp_path / "out") == str(tmp_path / "out" / "model")
    assert merged == [str(actor)]


def test_a_failed_merge_invalidates_the_earlier_merge(tmp_path: Path, monkeypatch, merged) -> None:
    merge(tmp_path / "five", tmp_path / "model", "5")

    def fail(_: Path) -> None:
        raise OSError("full")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="full"):
        broken.setattr(module, "restore_expert_layout", fail)
        merge(tmp_path / "six", tmp_path / "model", "6")
    merge(tmp_path / "five", tmp_path / "model", "5")
    assert merged == [str(tmp_path / name) for name in ("five", "six", "five")]


def test_a_failed_merge_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: list[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        (tmp_path / "model").mkdir(exist_ok=True)
        raise subprocess.CalledProcessError(1, "merger")

    with monkeypatch.context() as patched:
        patched.setattr(module.subprocess, "run", fail)
        with pytest.raises(subprocess.CalledProcessError):
            merge(tmp_path / "actor", tmp_path / "model", "5")
    assert merge(tmp_path / "actor", tmp_path / "model", "5") == tmp_path / "model"
    assert merge(tmp_path / "actor", tmp_path / "model", "6") == tmp_path / "model"
    assert len(merged) == 2


def test_merged_files_get_the_permissions_of_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], check: bool) -> None:
        # safetensors creates files that only their owner can read.
        os.close(os.open(tmp_path / "model" / "model.safetensors", os.O_CREAT, 0o600))

    monkeypatch.setattr(module.subprocess, "run", run)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(CONFIG)
    before = os.umask(0o022)
    try:
        merge(tmp_path / "actor", tmp_path / "model", "5")
        assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o777 == 0o644
        os.umask(0o077)
        (tmp_path / "mine").mkdir()
        os.close(os.open(tmp_path / "mine" / "weights", os.O_CREAT, 0o600))
        make_readable(tmp_path / "mine")
        assert (tmp_path / "mine" / "weights").stat().st_mode & 0o777 == 0o600
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)


def test_only_experts_of_qwen3_vl_are_transposed_to_the_published_layout(tmp_path: Path) -> None:
    saved = {"layers.0.mlp.experts.down_proj": torch.rand(2, 3, 4), "layers.0.mlp.gate.weight": torch.rand(2, 3)}
    for model_type, has_experts in (("qwen3_vl_moe", True), ("qwen3_vl", False)):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
        save_file(saved, tmp_path / "model.safetensors")
        restore_expert_layout(tmp_path)
        restored = load_file(tmp_path / "model.safetensors")
        for name, tensor in saved.items():
            expected = tensor.transpose(1, 2) if has_experts and "experts" in name else tensor
            assert torch.equal(restored[name], expected)
