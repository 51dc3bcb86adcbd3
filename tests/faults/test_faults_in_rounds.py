"""`make self-improve`, killed in each phase of a round: no question is lost, or written or trained on twice."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from restarted_launcher import RestartedLauncher, lines_of

from mmupt.compose import as_override
from mmupt.self_improvement.rounds import read_round, round_folder
from mmupt.self_improvement.run_rounds import read_policy
from mmupt_data.figure_task import write_figures as figures
from verl_ext.checkpoints import last_whole_step

pytestmark = [pytest.mark.faults, pytest.mark.full_stack]

FIGURES = 64
OVERRIDES = {
    "mmupt.datasets": [],
    "mmupt.evaluation_samples": 2,
    "data.train_batch_size": 4,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.rollout.n": 4,
    "trainer.total_training_steps": 3,
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
}


class Rounds(RestartedLauncher):
    """A launcher of two rounds in a folder."""

    def __init__(self, data: Path, folder: Path) -> None:
        files = {
            "mmupt.self_improve.images": str(data / "train.parquet"),
            "mmupt.evaluation_files": str(data / "test.parquet"),
            "data.val_files": str(data / "validation.parquet"),
        }
        command = [
            sys.executable,
            "-m",
            "mmupt",
            "self-improve",
            "mmupt_tiny_self_improve",
            "--rounds",
            "2",
        ]
        overrides = [as_override(key, value) for key, value in {**OVERRIDES, **files}.items()]
        run_folders = [round_folder(folder, number) / phase for number in (1, 2) for phase in ("synthesis", "run")]
        super().__init__([*command, "--folder", str(folder), *overrides], folder.parent / "rounds.log", run_folders)
        self.folder = folder


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    figures(tmp_path / "figures", train=FIGURES, validation=8, test=64)
    rounds = Rounds(tmp_path / "figures", tmp_path / "rounds")
    yield rounds
    rounds.close()


def test_rounds_killed_in_each_phase_end_with_the_questions_and_steps_of_uninterrupted_rounds(rounds: Rounds) -> None:
    first, second = round_folder(rounds.folder, 1), round_folder(rounds.folder, 2)
    before: dict[Path, list[str]] = {}

    def has_responses(folder: Path, stage: str) -> Callable[[], bool]:
        file = folder / "synthesis" / "responses" / f"{stage}.partial.jsonl"

        def condition() -> bool:
            # The first line has the parameters.
            before[file] = lines_of(file)
            return len(before[file]) > 5

        return condition

    rounds.kill_once(has_responses(first, "questions"))
    rounds.kill_once(has_responses(first, "difficulty"))
    rounds.kill_once(lambda: last_whole_step(first / "run" / "checkpoints") >= 1)
    rounds.kill_once((first / "run" / "model" / "config.json").is_file)
    rounds.kill_once(lambda: len(lines_of(first / "run" / "evaluation" / "after.partial.jsonl")) > 5)
    # Between the rounds, and in the second round.
    rounds.kill_once((first / "policy.txt").is_file)
    modified = {file: file.stat().st_mtime_ns for file in (first / "synthesis").rglob("*") if file.name != "lock"}
    rounds.kill_once(has_responses(second, "questions"))
    rounds.kill_once(lambda: last_whole_step(second / "run" / "checkpoints") >= 1)
    rounds.finish()

    assert {file: file.stat().st_mtime_ns for file in modified} == modified
    assert len(before) == 3
    for file, lines in before.items():
        # Responses from before the kill were kept.
        responses = [json.loads(line) for line in lines_of(file.with_name(file.name.replace(".partial", "")))]
        assert all(response in responses for line in lines[1:] for response in json.loads(line))
    parents = pq.read_table(rounds.folder.parent / "figures" / "train.parquet", columns=["id"])["id"].to_pylist()
    for number, folder in enumerate((first, second), start=1):
        candidates = [json.loads(line) for line in lines_of(folder / "synthesis" / "candidates.jsonl")]
        assert [candidate["id"] for candidate in candidates] == [f"{parent}-direct-r{number}-0" for parent in parents]
        questions = pq.read_table(folder / "synthesis" / "train.parquet", columns=["id"])["id"].to_pylist()
        assert questions == [candidate["id"] for candidate in candidates if candidate["dropped_by"] is None]
        result = read_round(rounds.folder, number)
        # A step that is killed between its checkpoint and its metrics has no metrics.
        assert set(result.majority_ratios) <= {1, 2, 3} and max(result.majority_ratios) == 3
        assert last_whole_step(folder / "run" / "checkpoints") == 3
        assert len(result.scores["greedy accuracy"].per_question) == 64
    assert read_policy(rounds.folder, 2) == str(second / "run" / "model")
    assert len(json.loads((rounds.folder / "rounds.json").read_text())["rounds"]) == 2
