"""The real stack from end to end on the tiny model: train, kill, resume, export, evaluate, report.

Extra responses vote, zero-advantage groups are replaced, and votes are saved.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import IO

import pytest
from full_stack import HANG_SECONDS, scalars

from mmupt_data.figure_task import write_figures
from verl_ext.answers import extract_answer
from verl_ext.checkpoints import last_whole_step
from verl_ext.datasets.parquet_reader import read_ids
from verl_ext.trackers.runs import TrackerRecord
from verl_ext.votes import VoteOptions, vote
from verl_ext.votes.vote_files import files_of_steps, read_train_files, read_votes

pytestmark = pytest.mark.full_stack

OVERRIDES = (
    "data.train_batch_size=4",
    "data.val_max_samples=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "trainer.save_freq=1",
    "trainer.test_freq=2",
    "mmupt.evaluation_samples=2",
    "reward.reward_kwargs.vote.vote_n=6",
    # Few groups of the untrained model agree that much, so some are almost certainly replaced.
    "reward.reward_kwargs.vote.min_votes=4",
    "algorithm.filter_groups.enable=True",
    "algorithm.filter_groups.metric=reward",
    # Several reward workers, any of which may score a group.
    "reward.num_workers=2",
)
STEPS = (1, 2, 3)
# Number of evaluation questions.
QUESTIONS = 64


def train(run_folder: Path, console: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "mmupt",
        "train",
        "mmupt_tiny",
        f"mmupt.run_folder={run_folder}",
        f"mmupt.evaluation_files={run_folder.parent / 'figures' / 'test.parquet'}",
        f"trainer.total_training_steps={len(STEPS)}",
        *OVERRIDES,
    ]
    # A new process group, so that the run can be killed without the processes of the test.
    return subprocess.Popen(command, start_new_session=True, stdout=console, stderr=console)


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps that was killed after the first step was saved and logged, and then started again."""
    product = tmp_path_factory.mktemp("product")
    write_figures(product / "figures", train=3, validation=3, test=QUESTIONS)
    folder = product / "run"
    killed = train(folder)
    # veRL saves a step before it logs the step.
    while not (
        last_whole_step(folder / "checkpoints") >= 1
        and TrackerRecord(folder / "trackers.json").last_step("tensorboard") >= 1
        and (folder / "rollouts" / "1.jsonl").is_file()
    ):
        assert killed.poll() is None, "the run ended before its first step was logged"
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    with (folder / "console.txt").open("wb") as console:
        assert train(folder, console).wait(timeout=HANG_SECONDS) == 0
    return folder


def test_an_interrupted_run_continues_from_its_checkpoint_and_ends_with_the_report(run_folder: Path) -> None:
    assert (run_folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert "Resuming from" in (run_folder / "logs" / "train.log").read_text()
    report = json.loads((run_folder / "report.json").read_text())
    assert report["questions"] == QUESTIONS
    accuracies = {"greedy accuracy", "mean@2", "maj@2", "pass@2"}
    assert set(report["scores"]) == accuracies | {"semantic entropy", "response length"}
    assert (run_folder / "report.png").stat().st_size > 10_000


def test_the_console_shows_phases_and_steps_and_the_log_everything(run_folder: Path) -> None:
    lines = (run_folder / "console.txt").read_text().splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 200
    phases = ("check the rows", "start Ray", "export the policy")
    phases += ("evaluate the policy before training", "evaluate the policy after training", "report")
    shown = [line.split(maxsplit=1)[1] for line in lines if re.match(r" +\d+:\d\d  ", line)]
    assert [name for name in shown if name in phases] == [*phases]
    # The phases of the start, some of which may be too short to show.
    assert {"load the model", "start the engine", "first validation", "train"} & {*shown}
    resumed = re.search(r"the run resumes from step (\d) of 3", "\n".join(lines))
    assert resumed is not None
    # The checkpoint is validated on resuming, although the killed run has logged this step.
    assert any(re.search(rf"validation accuracy .* at step {resumed[1]}$", line) for line in lines)
    steps = [int(row[1]) for line in lines if (row := re.match(r" +(\d)/3 ", line))]
    assert steps == [*range(int(resumed[1]) + 1, 4)]
    assert f"The policy is in {run_folder / 'model'}" in lines
    log = (run_folder / "logs" / "train.log").read_text()
    for hidden in ("verl_ext is active", "ray init kwargs", "(WorkerDict pid=", "step:3 - ", "The policy is in "):
        assert hidden in log, hidden


def test_every_step_reports_the_vote_to_tensorboard(run_folder: Path) -> None:
    series = scalars(run_folder)
    for name in ("majority_ratio", "distinct_answers", "no_answer_rate", "tie_rate", "zero_advantage_rate",
                 "failed_responses", "scoring_seconds", "label_accuracy", "reward_accuracy"):  # fmt: skip
        assert set(series[f"vote/{name}"]) == {*STEPS}, name
    assert set(series["response_length/mean"]) == {*STEPS}
    assert all(value == 0 for value in series["vote/failed_responses"].values())
    for step in STEPS:
        # A mean over four groups of six voting responses.
        votes = series["vote/majority_ratio"][step] * 4 * 6
        assert votes == pytest.approx(round(votes), abs=1e-4) and votes >= 4 * 4 - 1e-4
    assert {0, 2, 3} <= set(series["val-core/figures/acc/mean@1"])


def test_rollout_and_training_see_the_same_policy(run_folder: Path) -> None:
    assert max(scalars(run_folder)["actor/rollout_probs_diff_mean"].values()) < 1e-4


def test_only_validated_rows_had_ground_truth(run_folder: Path) -> None:
    trained = [row for step in STEPS for row in rows(run_folder / "rollouts" / f"{step}.jsonl")]
    assert len(trained) == 3 * 4 * 4
    assert all(row["gts"] is None for row in trained)
    validated = rows(run_folder / "validation" / "3.jsonl")
    assert len(validated) == 8
    assert all(row["gts"] is not None and row["acc"] == row["score"] for row in validated)


def test_every_trained_group_has_n_responses_and_a_nonzero_advantage(run_folder: Path) -> None:
    for step in STEPS:
        groups: dict[str, list[float]] = defaultdict(list)
        for row in rows(run_folder / "rollouts" / f"{step}.jsonl"):
            groups[row["uid"].split("_")[0]].append(row["score"])
        assert [len(rewards) for rewards in groups.values()] == [4] * 4
        assert all(set(rewards) == {0.0, 1.0} for rewards in groups.values())
    assert scalars(run_folder)["vote/zero_advantage_rate"] == dict.fromkeys(STEPS, 0.0)


def test_zero_advantage_groups_were_replaced(run_folder: Path) -> None:
    assert sum(scalars(run_folder)["training/filter_groups/evicted_samples"].values()) > 0


def test_every_step_saves_its_votes_once_with_the_rewards_it_trained_on(run_folder: Path) -> None:
    files = files_of_steps(run_folder / "votes")
    assert [*files] == [*STEPS] and not [*(run_folder / "votes").glob("*.tmp")]
    label_accuracy = scalars(run_folder)["vote/label_accuracy"]
    for step, file in files.items():
        groups = read_votes(file)
        assert len(groups) == 4 and all(len(group["responses"]) == 6 for group in groups)
        for group in groups:
            responses = group["responses"]
            result = vote([extract_answer(response["text"]) for response in responses], VoteOptions(min_votes=4))
            assert [response["reward"] for response in responses] == [*result.rewards]
            assert (group["pseudo_label"], group["majority_ratio"]) == (result.pseudo_label, result.majority_ratio)
            assert [response["trained"] for response in responses] == [True] * 4 + [False] * 2
            assert (group["first_policy"], group["last_policy"], group["images"]) == (step - 1, step - 1, 1)
            assert group["question"] and "<image>" not in group["question"]
            # The task has ground truth, which is joined after the vote.
            assert group["label_correct"] == responses[result.classes[0][0]]["correct"]
        assert label_accuracy[step] == pytest.approx(sum(group["label_correct"] for group in groups) / 4)
        responses = [response for group in groups for response in group["responses"]]
        voted = [(response["text"], response["reward"]) for response in responses if response["trained"]]
        trained = [(row["output"], row["score"]) for row in rows(run_folder / "rollouts" / f"{step}.jsonl")]
        assert sorted(voted) == sorted(trained)
    (train_file,) = read_train_files(files[1])
    assert {group["id"] for group in read_votes(files[1])} <= {*read_ids(train_file)}


def test_the_viewer_shows_votes_and_evaluation(run_folder: Path) -> None:
    from mmupt.viewer.run_files import RunFiles

    shown = RunFiles(run_folder)
    assert shown.summary()["sides"] and len(shown.evaluation.questions()) == QUESTIONS
    _, picture = shown.picture("votes", read_votes(files_of_steps(run_folder / "votes")[3])[0]["id"], 0, None)
    assert picture


def test_the_exported_policy_loads_in_transformers_and_has_changed(run_folder: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoProcessor.from_pretrained(run_folder / "model")
    trained = AutoModelForImageTextToText.from_pretrained(run_folder / "model").state_dict()
    base = AutoModelForImageTextToText.from_pretrained("recipes/mmupt/tiny/model").state_dict()
    assert trained.keys() == base.keys()
    assert any(not torch.equal(trained[name], base[name]) for name in base)


def test_the_same_command_after_the_end_only_reports(run_folder: Path) -> None:
    log, after = run_folder / "logs" / "train.log", run_folder / "evaluation" / "after.jsonl"
    so_far, evaluated = len(log.read_text()), after.stat().st_mtime_ns
    assert train(run_folder).wait(timeout=HANG_SECONDS) == 0
    assert "Training Progress" not in log.read_text()[so_far:] and "The report is in" in log.read_text()[so_far:]
    assert "all 3 training steps are done already" in log.read_text()[so_far:]
    assert after.stat().st_mtime_ns == evaluated
