"""A run resumes from its last whole checkpoint, whatever a kill has left of the others and of the tracker."""

from pathlib import Path

import pytest
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from verl_ext.checkpoints import TRACKER, checkpoint_of, last_whole_step, repair_tracker
from verl_ext.checkpoints.callback import MarkWhole


def save(folder: Path, step: int, whole: bool = True) -> None:
    (checkpoint_of(folder, step) / "actor").mkdir(parents=True)
    if whole:
        MarkWhole().on_save(trainer=None, global_step=step, checkpoint_dir=str(checkpoint_of(folder, step)))
    (folder / TRACKER).write_text(str(step))


@pytest.mark.parametrize("tracked", ["", "15", "10", "5", None], ids=["empty", "half", "right", "older", "missing"])
def test_verl_is_led_to_the_last_whole_checkpoint_by_name(tmp_path: Path, tracked: str | None) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    save(tmp_path, 15, whole=False)
    if tracked is None:
        (tmp_path / TRACKER).unlink()
    else:
        (tmp_path / TRACKER).write_text(tracked)
    assert repair_tracker(tmp_path) == 10
    assert find_latest_ckpt_path(str(tmp_path)) == str(checkpoint_of(tmp_path, 10))


def test_steps_are_compared_as_numbers(tmp_path: Path) -> None:
    save(tmp_path, 100)
    save(tmp_path, 20)
    assert last_whole_step(tmp_path) == 100


def test_without_a_whole_checkpoint_a_run_starts_from_scratch(tmp_path: Path) -> None:
    assert repair_tracker(tmp_path / "new") == 0
    save(tmp_path, 5, whole=False)
    assert repair_tracker(tmp_path) == 0
    assert find_latest_ckpt_path(str(tmp_path)) is None


def test_a_checkpoint_whose_weights_were_removed_to_save_space_is_not_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    (checkpoint_of(tmp_path, 10) / "actor").rmdir()
    assert repair_tracker(tmp_path) == 5


def test_a_repair_says_what_it_found_and_where_it_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 5)
    repair_tracker(tmp_path)
    assert capsys.readouterr().out == ""
    (tmp_path / TRACKER).write_text("")
    repair_tracker(tmp_path)
    assert "named 'no step', which is no whole checkpoint: resuming from step 5" in capsys.readouterr().out


def test_an_asynchronous_save_is_refused_as_nobody_knows_when_it_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="async_save=False"):
        MarkWhole().on_save(trainer=None, global_step=1, checkpoint_dir=str(tmp_path), async_save=True)
