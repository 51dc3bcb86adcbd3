"""benchmarks/paper_step.py runs at its smallest size, with figures of every process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from full_stack import HANG_SECONDS

# Also full_stack, so that runs without long tests skip it.
pytestmark = [pytest.mark.benchmark, pytest.mark.full_stack]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_smallest_step_reports_every_process_and_byte() -> None:
    command = [sys.executable, str(BENCHMARKS / "paper_step.py"), "--smallest"]
    result = subprocess.run(command, check=True, timeout=HANG_SECONDS, stdout=subprocess.PIPE, text=True)
    (figures,) = json.loads(result.stdout.splitlines()[-1]).values()
    assert figures["responses"] == 16 and figures["response tokens"] > 16
    assert figures["seconds"].keys() == {"gen", "old_log_prob", "ref", "adv", "update_actor", "step"}
    assert 0 < figures["vote s"] < figures["seconds"]["step"]
    processes = figures["processes"]
    for name in ("GroupAgentLoopWorker", "WorkerDict", "StandInServer"):
        assert processes[name]["processes"] == 1, name
    # Features are sent once per prompt and as bytes. In fp32, 4 images of 112 x 112 px take 1.2 MB once, 4.8 per row.
    assert 0 < processes["GroupAgentLoopWorker"]["sent MB"] < 1.2
    # Every pass reads the features.
    assert processes["SimpleStorageUnit"]["sent MB"] > processes["GroupAgentLoopWorker"]["sent MB"]
    assert all(0.2 < processes[name]["peak GiB"] < 4 for name in ("TaskRunnerV1", "WorkerDict", "RewardLoopWorker"))
