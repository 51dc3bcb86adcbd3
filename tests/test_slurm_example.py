"""examples/slurm.sh with stand-ins for Slurm, Ray and the recipe; tests/cluster/slurm.sh runs it without stand-ins."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path("examples/slurm.sh").absolute()
STAND_INS = {
    "bin/scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$@" >>scontrol.log; fi',
    "bin/srun": 'case "$*" in *hostname*) echo "fe80::1 10.0.0.1 10.0.0.2" ;; esac',
    ".venv/bin/ray": "echo token",
    # The script asks for the number of live nodes: 2 before the training, NODES_LEFT after it.
    ".venv/bin/python": 'if [ -e arguments ]; then echo "$NODES_LEFT"; else echo 2; fi',
    ".venv/bin/mmupt": """printf '%s\\n' "$@" >arguments; exit "$STATUS\"""",
}


def submit(folder: Path, *arguments: str, status: int = 0, nodes_left: int = 2, restarts: int = 0) -> int:
    """Run the script in a folder as Slurm does, with a recipe that exits with `status`; returns the script's status."""
    for name, commands in STAND_INS.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{commands}\n")
        file.chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_ON_NODE": "64",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    stand_ins = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "STATUS": str(status), "NODES_LEFT": str(nodes_left)}
    command = ["bash", SCRIPT, "mmupt_mathvista", *arguments]
    return subprocess.run(command, env=os.environ | slurm | stand_ins, timeout=30).returncode


def test_the_recipe_gets_the_jobs_nodes_and_gpus_and_unchanged_arguments(tmp_path: Path) -> None:
    assert submit(tmp_path, "hardware=cpu", "mmupt.report_note='two words'") == 0
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "train",
        "mmupt_mathvista",
        "hardware=gpu_nodes_8x80gb",
        "trainer.nnodes=2",
        "trainer.n_gpus_per_node=8",
        "hardware=cpu",
        "mmupt.report_note='two words'",
    ]


@pytest.mark.parametrize(
    ("status", "nodes_left", "restarts", "queued"),
    [(1, 1, 0, True), (1, 1, 3, False), (1, 2, 0, False), (0, 1, 0, False)],
    ids=["a node failed", "a node failed for the fourth time", "the run failed", "a node failed after the run"],
)
def test_a_job_is_requeued_after_a_node_failure(
    tmp_path: Path, status: int, nodes_left: int, restarts: int, queued: bool
) -> None:
    assert submit(tmp_path, status=status, nodes_left=nodes_left, restarts=restarts) == status
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == ("requeue 7\n" if queued else "")
