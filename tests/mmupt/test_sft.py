"""Preparing supervised fine-tuning: rows that are refused, settings for veRL, and checkpoints to continue from."""

import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from response_rows import SETTINGS, responses, write_responses
from verl.utils.config import omega_conf_to_dataclass

from mmupt.baselines import sft
from mmupt.baselines.sft import train_sft, trainer_overrides
from mmupt.baselines.training_folder import record_training
from verl_ext.checkpoints import TRACKER, checkpoint_of

MODEL = "recipes/mmupt/tiny/model"
ROWS = responses(20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_responses(tmp_path / "responses.parquet", ROWS)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: list[Any], **options: Any) -> None:
        pytest.fail(f"started: {command}")

    monkeypatch.setattr(subprocess, "run", start)


def begin(folder: Path, file: Path, *names: str) -> Path:
    """Make a training folder with a checkpoint of step 1 that has files of these names; return the checkpoint."""
    checkpoint = checkpoint_of(folder / "checkpoints", 1)
    checkpoint.mkdir(parents=True)
    for name in names:
        (checkpoint / name).write_text(name)
    (folder / "checkpoints" / TRACKER).write_text("1")
    record_training(folder, asdict(SETTINGS), MODEL, file, has_begun=False)
    return checkpoint


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"epochs": "many"}, "epochs must be a whole number of at least 1, not 'many'"),
        ({"steps": 0}, "steps must be a whole number of at least 1, or null"),
        ({"learning_rate": -1e-6}, "learning_rate must be a number above 0"),
        ({"warmup_share": 1.0}, "warmup_share must be a number from 0 to less than 1"),
        ({"device": "tpu"}, "device must be cpu or cuda"),
        ({"batch_size": 7, "processes": 2}, "batch_size must be a multiple of processes = 2"),
        ({"micro_batch_tokens": 95}, "micro_batch_tokens must be a whole number that is at least max_length = 96"),
    ],
)
def test_invalid_settings_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changed)


def drop_response(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "response"} for row in rows]


def with_row(**changed: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [*rows[:12], {**rows[12], **changed}, *rows[13:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_response, r"responses\.parquet has no column response \(found: id, prompt, images\)"),
        (lambda rows: rows[:7], r"responses\.parquet has 7 rows, fewer than a batch of 8: set a smaller batch_size"),
        (with_row(response=" "), r"responses\.parquet, row 12, id figure-12: the response is empty"),
        (with_row(response=None), "row 12, id figure-12: the response is empty"),
        (with_row(images=[]), "row 12, id figure-12: .*1 <image> in the prompt, 0 images"),
        (with_row(images=[{"bytes": b"no image"}]), "row 12, id figure-12: is not an image that Pillow reads"),
        (with_row(prompt=[{"role": "assistant", "content": "so"}]), "row 12, .* must end with a user message"),
        (with_row(response="1 + " * 50), r"row 12, .*: \d+ tokens, 9 of them images, over max_length=96: leave"),
    ],
)
def test_unusable_rows_are_named_before_a_process_starts(
    tmp_path: Path, nothing_starts: None, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], message: str
) -> None:
    file = write_responses(tmp_path / "responses.parquet", change(ROWS))
    with pytest.raises(ValueError, match=message):
        train_sft(SETTINGS, MODEL, file, tmp_path / "sft")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.parquet is missing"):
        train_sft(SETTINGS, MODEL, tmp_path / "nowhere.parquet", tmp_path / "sft")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_verls_configuration_accepts_the_settings(tmp_path: Path, file: Path, device: str) -> None:
    settings = replace(SETTINGS, device=device, steps=5, processes=2)
    overrides = trainer_overrides(settings, MODEL, file, tmp_path / "it's a folder", rows=20)
    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer/config"), version_base=None):
        config = compose("sft_trainer_engine", overrides)
    engine, optimizer = (omega_conf_to_dataclass(config[name]) for name in ("engine", "optim"))
    assert (engine.strategy, optimizer.lr) == ("fsdp2", 3e-4)
    # An epoch has two updates.
    assert (config.trainer.total_epochs, config.trainer.total_training_steps) == (3, 5)
    assert config.trainer.default_local_dir == str(tmp_path / "it's a folder" / "checkpoints")
    assert config.model.override_config.attn_implementation in ("sdpa", "flash_attention_2")
    assert config.model.use_fused_kernels == (device == "cuda")
    precision = {"param_dtype": "fp32"} if device == "cpu" else None
    assert OmegaConf.to_container(config.engine).get("mixed_precision") == precision


def test_a_finished_policy_is_not_trained_again(tmp_path: Path, file: Path, nothing_starts: None) -> None:
    begin(tmp_path / "sft", file)
    (tmp_path / "sft" / "model").mkdir()
    assert train_sft(SETTINGS, MODEL, file, tmp_path / "sft") == tmp_path / "sft" / "model"
    assert not (tmp_path / "sft" / "checkpoints").exists()


@pytest.mark.parametrize(("steps_per_epoch", "data_states"), [(2, {"data_0.pt", "data_1.pt"}), (1, set())])
def test_a_training_continues_from_its_last_checkpoint_with_the_data_position_of_an_unfinished_epoch(
    tmp_path: Path, file: Path, steps_per_epoch: int, data_states: set[str]
) -> None:
    checkpoint = begin(tmp_path, file, "model.pt", "data_0.pt")
    checkpoint_of(checkpoint.parent, 2).mkdir()
    assert sft._clean(checkpoint.parent, steps_per_epoch, processes=2) == 1
    assert {path.name for path in checkpoint.parent.iterdir()} == {TRACKER, checkpoint.name}
    assert {path.name for path in checkpoint.iterdir()} == {"model.pt", *data_states}


def test_settings_may_change_before_the_first_checkpoint(tmp_path: Path, file: Path) -> None:
    for seed in (1, 2):
        record_training(tmp_path, asdict(replace(SETTINGS, seed=seed)), MODEL, file, has_begun=False)


def test_a_training_continues_after_its_folder_was_moved_with_the_model_that_it_starts_from(tmp_path: Path) -> None:
    def record(run: Path, model: str) -> None:
        record_training(run / "stages" / "dpo", {}, model, run / "stages" / "pairs.parquet", has_begun=True)

    run = tmp_path / "old" / "run"
    (run / "stages" / "dpo").mkdir(parents=True)
    (run / "stages" / "pairs.parquet").touch()
    record(run, f"{run}/stages/sft/model")
    moved = run.rename(tmp_path / "run")
    for _ in range(2):
        record(moved, f"{moved}/stages/sft/model")
    with pytest.raises(ValueError, match=r"other settings \(model\)"):
        record(moved, f"{run}/stages/sft/model")


def test_a_folder_with_a_training_of_other_settings_or_rows_is_refused(
    tmp_path: Path, file: Path, nothing_starts: None
) -> None:
    folder = tmp_path / "sft"
    begin(folder, file)
    with pytest.raises(
        ValueError, match=r"sft holds a training with other settings \(learning_rate, seed\): delete it"
    ):
        train_sft(replace(SETTINGS, seed=2, learning_rate=1e-4), MODEL, file, folder)
    write_responses(file, ROWS[1:])
    with pytest.raises(ValueError, match=r"other settings \(rows\)"):
        train_sft(SETTINGS, MODEL, file, folder)
    write_responses(file, ROWS)
    (folder / "model").mkdir()
    # The policy does not depend on these settings.
    assert train_sft(replace(SETTINGS, micro_batch_tokens=96, save_steps=1), MODEL, file, folder).is_dir()
