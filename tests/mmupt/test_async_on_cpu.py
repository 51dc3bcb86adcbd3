"""Both asynchronous modes on the full stack with the tiny model: train, kill, resume, stop on a collapse, export."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from full_stack import HANG_SECONDS, scalars

from mmupt_data import figure_task
from verl_ext.answers import extract_answer
from verl_ext.checkpoints import last_whole_step
from verl_ext.collapse import History
from verl_ext.votes import vote

pytestmark = pytest.mark.full_stack

N = 4
OVERRIDES = (
    "data.train_batch_size=8",
    f"actor_rollout_ref.rollout.n={N}",
    # Half a batch of equally long responses runs while the other half waits in the engine, so the next responses are
    # in flight when the groups of a step are complete.
    "actor_rollout_ref.rollout.ignore_eos=True",
    "data.max_response_length=64",
    f"actor_rollout_ref.rollout.max_num_seqs={4 * N}",
    "algorithm.filter_groups.enable=True",
    "trainer.total_training_steps=8",
    "trainer.val_before_train=False",
    "trainer.test_freq=6",
    "data.val_max_samples=16",
    "mmupt.evaluation_files=null",
    # Any fall of accuracy counts as a collapse, see `run_folder`.
    "mmupt.stop_on_collapse.z=0",
    "mmupt.stop_on_collapse.patience=1",
)
OPTIONS = {
    "colocate": ("actor_rollout_ref.actor.ppo_mini_batch_size=8",),
    # Two updates per step, because recipes for GPUs have several updates.
    "separate_cpu": (
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "trainer.v1.separate_async.parameter_sync_step=2",
    ),
}
STEPS = {1, 2, 3, 4, 5, 6}


def start(option: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", f"+async={option}", *OPTIONS[option]]
    # A separate process group can be killed without the test itself.
    return subprocess.Popen([*command, f"mmupt.run_folder={folder}", *OVERRIDES], start_new_session=True)


@pytest.fixture(scope="module", params=OPTIONS)
def run_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a history of perfect accuracy that was killed after its first checkpoint and started again."""
    folder = tmp_path_factory.mktemp(request.param)
    figure_task.write_figures(Path("datasets/figures"))
    questions = pq.read_table("datasets/figures/validation.parquet").column("id").to_pylist()
    history = [{"step": -3, "right": {question: [1.0] for question in questions}}]
    history += [{"step": step, "majority_ratio": 0.01} for step in (-2, -1, 0)]
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in history))
    process = start(request.param, folder)
    while last_whole_step(folder / "checkpoints") < 1:
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(request.param, folder).wait(timeout=HANG_SECONDS) == 0
    return folder


def is_separate(run_folder: Path) -> bool:
    return run_folder.name.startswith("separate")


@pytest.fixture(scope="module")
def series(run_folder: Path) -> dict[str, dict[int, float]]:
    return scalars(run_folder)


def test_a_killed_run_resumes_with_its_checkpoint_and_the_prompts_in_flight(run_folder: Path) -> None:
    log = (run_folder / "logs" / "train.log").read_text()
    assert "Resuming from" in log
    restored = re.search(r"Restored (\d+) training prompt groups from TransferQueue", log)
    assert restored is not None and int(restored[1]) > 0
    # A separate replica may finish all prompts during training.
    assert is_separate(run_folder) or re.search(r"Re-issued \d+ in-flight prompts", log)


def test_every_step_trains_on_complete_groups_with_rewards_from_the_vote(
    run_folder: Path, series: dict[str, dict[int, float]]
) -> None:
    # The files of step 1 are written after its checkpoint, when the run was killed.
    for step in STEPS - {1}:
        groups: dict[str, list[dict]] = defaultdict(list)
        for line in (run_folder / "rollouts" / f"{step}.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert row["gts"] is None
            groups[row["uid"].split("_")[0]].append(row)
        assert [len(group) for group in groups.values()] == [N] * 8
        for group in groups.values():
            result = vote([extract_answer(row["output"]) for row in group])
            assert [row["score"] for row in group] == list(result.rewards)
            assert set(result.rewards) == {0.0, 1.0}
    for name in ("majority_ratio", "zero_advantage_rate", "policy_versions", "label_accuracy", "reward_accuracy"):
        assert set(series[f"vote/{name}"]) | {1} == STEPS, name
    assert set(series["vote/zero_advantage_rate"].values()) == {0.0}


def test_responses_of_the_previous_policy_are_trained_on_with_importance_weights(
    run_folder: Path, series: dict[str, dict[int, float]]
) -> None:
    staleness = series["training/off_policy/trajectory_staleness_worst/max"]
    # Responses are at most one step old.
    assert max(staleness.values()) == 1
    if not is_separate(run_folder):
        # In some steps, responses begin under a policy and end under the next policy.
        assert max(series["training/off_policy/trajectory_spans/max"].values()) == 2
        assert max(series["vote/policy_versions"].values()) > 1
    assert max(series["rollout_corr/rollout_is_max"].values()) > 1.001
    assert all(0.9 < mean < 1.1 for mean in series["rollout_corr/rollout_is_mean"].values())
    # A replica left out of a weight transfer would sample with random weights.
    assert min(series["training/rollout_actor_probs_pearson_corr"].values()) > 0.9


def test_a_collapse_ends_the_run_and_its_best_policy_is_exported(run_folder: Path) -> None:
    content = json.loads((run_folder / "collapse.json").read_text())
    assert (content["step"], content["kept_step"]) == (6, 6)
    assert (run_folder / "model" / "global_step.txt").read_text() == "6"
    assert not (run_folder / "checkpoints" / "best" / "global_step_6" / "transfer_queue").exists()
    assert set(History(run_folder / "history.jsonl").majority_ratios) >= STEPS
