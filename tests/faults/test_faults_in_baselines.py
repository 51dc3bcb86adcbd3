"""Baselines killed in each of their stages: nothing is generated or trained twice, and the run finishes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from restarted_launcher import RestartedLauncher, lines_of

from mmupt.baselines.stage_runner import stages_folder
from mmupt.compose import as_override
from mmupt.evaluation.response_files import read_whole
from mmupt_data.figure_task import write_figures as figures
from verl_ext.checkpoints import MARKER, TRACKER

pytestmark = [pytest.mark.faults, pytest.mark.full_stack]

ROWS, BATCH = 48, 4
# Files in the stage's folder once a training has a checkpoint.
TRAININGS = {"sft": f"checkpoints/{TRACKER}", "dpo": f"checkpoints/*/{MARKER}"}
STAGES = {
    "rejection_sft": ("samples", "sft"),
    "lmsi": ("samples", "sft"),
    "srlm": ("samples", "verdicts", "dpo"),
    "genixer": ("questions/responses/questions", "samples", "verdicts", "sft"),
    "stic": ("preferred", "dispreferred", "dpo", "descriptions", "samples", "sft"),
}


def launcher(method: str, folder: Path) -> RestartedLauncher:
    figures(folder / "figures", train=ROWS, validation=4, test=16)
    run = folder / "run"
    overrides: dict[str, object] = {
        "mmupt.run_folder": str(run),
        "mmupt.datasets": [],
        "mmupt.baseline.rows": ROWS,
        "mmupt.baseline.sft.save_steps": 1,
        "mmupt.baseline.dpo.save_steps": 1,
        "mmupt.evaluation_samples": 2,
        "mmupt.leakage.allowed_pairs": None,
        "actor_rollout_ref.actor.ppo_mini_batch_size": BATCH,
        **{
            key: str(folder / "figures" / f"{name}.parquet")
            for key, name in (
                ("data.train_files", "train"),
                ("data.val_files", "validation"),
                ("mmupt.evaluation_files", "test"),
            )
        },
    }
    command = [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", f"method={method}"]
    keys = [as_override(key, value) for key, value in overrides.items()]
    return RestartedLauncher([*command, *keys], folder / "launcher.log", [run])


@pytest.mark.parametrize("method", STAGES)
def test_a_method_killed_in_each_of_its_stages_continues(method: str, tmp_path: Path) -> None:
    run = launcher(method, tmp_path)
    stages = stages_folder(tmp_path / "run")
    before: dict[str, list[str]] = {}

    def has_responses(stage: str) -> Callable[[], bool]:
        def condition() -> bool:
            # The first line has the parameters.
            before[stage] = lines_of(stages / f"{stage}.partial.jsonl")[1:]
            return bool(before[stage])

        return condition

    def has_checkpoint(stage: str) -> Callable[[], bool]:
        return lambda: any((stages / stage).glob(TRAININGS[stage]))

    try:
        for stage in STAGES[method]:
            run.kill_once(has_checkpoint(stage) if stage in TRAININGS else has_responses(stage))
        run.finish()
    finally:
        run.close()

    files = {str(file.relative_to(stages).with_suffix("")): file for file in stages.glob("**/*.jsonl")}
    # `STAGES` has all stages; the other files are parsed from responses or log a training.
    assert set(files) - {"questions/candidates", "dpo/steps", "sft/metrics"} == set(before)
    for stage, lines in before.items():
        responses: dict[str, list[str]] = {}
        for response in read_whole(files[stage]):
            responses.setdefault(response.id, []).append(response.response)
        assert lines
        for group in map(json.loads, lines):
            assert responses[group[0]["id"]] == [record["response"] for record in group]
    if "sft" in STAGES[method]:
        epochs = json.loads((stages / "sft" / "parameters.json").read_text())["settings"]["epochs"]
        updates = pq.read_metadata(stages / "responses.parquet").num_rows // BATCH * epochs
        assert (stages / "sft" / "model" / "global_step.txt").read_text().strip() == str(updates)
    assert "greedy accuracy" in (tmp_path / "run" / "report.md").read_text()
