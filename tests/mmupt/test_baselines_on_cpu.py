"""A baseline on the full stack: vLLM generates its training sets, two trainers run, and the report compares."""

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

ROWS = 32


def command(folder: Path) -> list[str]:
    write_figures(folder / "figures", train=48, validation=3, test=6)
    files = {
        "data.train_files": folder / "figures" / "train.parquet",
        "data.val_files": folder / "figures" / "validation.parquet",
        "mmupt.evaluation_files": folder / "figures" / "test.parquet",
        "mmupt.run_folder": folder / "run",
    }
    keys = ["mmupt.datasets=[]", f"mmupt.baseline.rows={ROWS}", "mmupt.leakage.allowed_pairs=null"]
    keys += ["actor_rollout_ref.actor.ppo_mini_batch_size=8", *(f"{name}={file}" for name, file in files.items())]
    return [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", "method=stic", *keys]


def test_a_run_killed_while_it_generates_continues_through_both_trainers_to_its_report(tmp_path: Path) -> None:
    stages = tmp_path / "run" / "stages"
    growing = stages / "preferred.partial.jsonl"
    run = subprocess.Popen(command(tmp_path), start_new_session=True)
    while not (growing.is_file() and growing.read_bytes().count(b"\n") > 2):
        assert run.poll() is None and not growing.with_name("preferred.jsonl").exists()
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = growing.read_text().splitlines()[1:-1]
    assert before
    subprocess.run(command(tmp_path), check=True, timeout=HANG_SECONDS)
    after = {response.id: response.response for response in read_whole(stages / "preferred.jsonl")}
    assert len(after) == ROWS
    for (response,) in map(json.loads, before):
        assert after[response["id"]] == response["response"]

    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert "greedy accuracy" in (tmp_path / "run" / "report.md").read_text()
    summary = json.loads((stages / "summary.json").read_text())
    for name in ("pairs.parquet", "responses.parquet"):
        assert 0 < pq.read_metadata(stages / name).num_rows == summary["sets"][name]
    assert summary["rows"] == ROWS and summary["generated_tokens"]["all"] > 8 * ROWS
