"""The methods on the real stack: vLLM says what is kept, the trainers learn it, and the report compares."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from full_stack import HANG_SECONDS

from mmupt.evaluation.response_files import read_whole
from mmupt_data.figure_task import write_figures

pytestmark = pytest.mark.full_stack


def command(method: str, folder: Path, *overrides: str) -> list[str]:
    write_figures(folder / "figures", train=48, validation=3, test=6)
    files = {
        "data.train_files": folder / "figures" / "train.parquet",
        "data.val_files": folder / "figures" / "validation.parquet",
        "mmupt.evaluation_files": folder / "figures" / "test.parquet",
        "mmupt.run_folder": folder / "run",
    }
    keys = ["mmupt.datasets=[]", "mmupt.baseline.rows=32", "mmupt.leakage.allowed_pairs=null"]
    keys += ["actor_rollout_ref.actor.ppo_mini_batch_size=8", *(f"{name}={file}" for name, file in files.items())]
    return [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", f"method={method}", *keys, *overrides]


def check_report(run: Path, *sets: str) -> None:
    """Check what a run leaves: its policy, its report, and the sets that its trainers learnt from."""
    assert (run / "model" / "config.json").is_file() and "greedy accuracy" in (run / "report.md").read_text()
    summary = json.loads((run / "stages" / "summary.json").read_text())
    for name in sets:
        rows = pq.read_table(run / "stages" / f"{name}.parquet").num_rows
        assert 0 < rows == summary["sets"][f"{name}.parquet"]
    assert summary["rows"] == 32 and summary["generated_tokens"]["all"] > 32 * 8


def test_a_method_with_two_trainers_runs_to_its_report(tmp_path: Path) -> None:
    subprocess.run(command("stic", tmp_path), check=True, timeout=HANG_SECONDS)
    check_report(tmp_path / "run", "pairs", "responses")


def test_a_run_that_was_killed_while_the_policy_was_asked_goes_on_to_its_report(tmp_path: Path) -> None:
    growing = tmp_path / "run" / "stages" / "samples.partial.jsonl"
    run = subprocess.Popen(command("genixer", tmp_path), start_new_session=True)
    deadline = time.monotonic() + HANG_SECONDS
    while not (growing.is_file() and growing.read_bytes().count(b"\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = growing.read_text().splitlines()[1:-1]
    assert before
    subprocess.run(command("genixer", tmp_path), check=True, timeout=HANG_SECONDS)
    after: dict[str, list[str]] = {}
    for one in read_whole(growing.with_name("samples.jsonl")):
        after.setdefault(one.id, []).append(one.response)
    assert len(after) == pq.read_metadata(tmp_path / "run" / "stages" / "questions" / "train.parquet").num_rows
    for group in map(json.loads, before):
        assert after[group[0]["id"]] == [one["response"] for one in group]
    check_report(tmp_path / "run", "responses")
