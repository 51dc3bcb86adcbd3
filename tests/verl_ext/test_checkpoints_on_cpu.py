"""A run resumes from its last whole checkpoint, whatever a kill left of later ones and of the tracker file."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from verl_ext.checkpoints import TRACKER, checkpoint_of, last_whole_step, prune, repair_tracker, whole_steps
from verl_ext.checkpoints.best import keep, kept_checkpoint
from verl_ext.checkpoints.callback import CheckpointMarker


def save(folder: Path, step: int, whole: bool = True) -> None:
    (checkpoint_of(folder, step) / "actor").mkdir(parents=True)
    if whole:
        CheckpointMarker().on_save(trainer=None, global_step=step, checkpoint_dir=str(checkpoint_of(folder, step)))
    (folder / TRACKER).write_text(str(step))


@pytest.mark.parametrize("tracked", ["", "15", "10", "5", None], ids=["empty", "half", "right", "older", "missing"])
def test_verl_finds_the_last_whole_checkpoint_whatever_the_tracker_says(tmp_path: Path, tracked: str | None) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    save(tmp_path, 15, whole=False)
    if tracked is None:
        (tmp_path / TRACKER).unlink()
    else:
        (tmp_path / TRACKER).write_text(tracked)
    assert repair_tracker(tmp_path) == 10
    assert find_latest_ckpt_path(str(tmp_path)) == str(checkpoint_of(tmp_path, 10))


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    save(tmp_path, 100)
    save(tmp_path, 20)
    assert last_whole_step(tmp_path) == 100


def test_without_a_whole_checkpoint_a_run_starts_from_scratch(tmp_path: Path) -> None:
    assert repair_tracker(tmp_path / "new") == 0
    save(tmp_path, 5, whole=False)
    assert repair_tracker(tmp_path) == 0
    assert find_latest_ckpt_path(str(tmp_path)) is None


def test_a_checkpoint_without_weights_is_not_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    (checkpoint_of(tmp_path, 10) / "actor").rmdir()
    assert repair_tracker(tmp_path) == 5


def test_a_repair_prints_what_it_found_and_where_the_run_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 5)
    repair_tracker(tmp_path)
    assert capsys.readouterr().out == ""
    (tmp_path / TRACKER).write_text("")
    repair_tracker(tmp_path)
    assert "named 'no step', which is not a whole checkpoint: resuming from step 5" in capsys.readouterr().out


def test_an_asynchronous_save_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="async_save=False"):
        CheckpointMarker().on_save(trainer=None, global_step=1, checkpoint_dir=str(tmp_path), async_save=True)


def test_a_restart_keeps_no_more_checkpoints_than_configured(tmp_path: Path) -> None:
    trainer = SimpleNamespace(config=OmegaConf.create({"trainer": {"max_actor_ckpt_to_keep": 2}}))
    for step in (5, 10, 15, 100):
        # veRL's list of checkpoints to remove is empty after a restart.
        (checkpoint_of(tmp_path, step) / "actor").mkdir(parents=True)
        CheckpointMarker().on_save(trainer=trainer, global_step=step, checkpoint_dir=str(checkpoint_of(tmp_path, step)))
    assert whole_steps(tmp_path) == [15, 100]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["global_step_100", "global_step_15"]


@pytest.mark.parametrize(
    ("limit", "remaining"), [(1, [10]), (2, [5, 10]), (9, [1, 5, 10]), (None, [1, 5, 10]), (0, [1, 5, 10])]
)
def test_pruning_keeps_the_last_whole_checkpoints_and_the_best_weights(
    tmp_path: Path, limit: int | None, remaining: list[int]
) -> None:
    for step in (1, 5, 10):
        save(tmp_path, step)
        (checkpoint_of(tmp_path, step) / "actor" / "model.pt").write_text(str(step))
    save(tmp_path, 15, whole=False)
    # A kill cut off the save of step 3; veRL has removed the actor of step 4.
    save(tmp_path, 3, whole=False)
    (checkpoint_of(tmp_path, 4)).mkdir()
    keep(tmp_path, [1])
    prune(tmp_path, limit)
    assert whole_steps(tmp_path) == remaining
    kept = kept_checkpoint(tmp_path, 1)
    assert kept is not None and (kept / "actor" / "model.pt").read_text() == "1"
    assert checkpoint_of(tmp_path, 15).is_dir()
    assert checkpoint_of(tmp_path, 3).is_dir() == checkpoint_of(tmp_path, 4).is_dir() == (not limit)
