"""A round of self-improvement on the full stack, with a trained question writer and images without ground truth."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from full_stack import HANG_SECONDS, SMALL, scalars
from safetensors.torch import load_file

from mmupt.compose import as_override
from mmupt.self_improvement.rounds import read_round, round_folder
from mmupt.self_improvement.run_rounds import read_policy
from mmupt_data.figure_task import write_figures
from verl_ext.datasets.ground_truth import sidecar_of

pytestmark = pytest.mark.full_stack

BASE = Path("recipes/mmupt/tiny/model")
FIGURES = 16


def test_a_round_trains_on_the_questions_that_the_policy_wrote_about_images_without_answers(tmp_path: Path) -> None:
    data, folder = tmp_path / "figures", tmp_path / "rounds"
    write_figures(data, train=FIGURES, validation=8, test=16)
    sidecar_of(data / "train.parquet").unlink()
    overrides = {
        "mmupt.datasets": [],
        "mmupt.self_improve.images": str(data / "train.parquet"),
        "mmupt.evaluation_files": str(data / "test.parquet"),
        "mmupt.evaluation_samples": 2,
        "data.train_files": str(data / "train.parquet"),
        "data.val_files": str(data / "validation.parquet"),
        "mmupt.self_improve.writer_steps": 1,
        # A wording that the tiny model was taught to answer with yes or no.
        "reward.reward_kwargs.solver.validity_prompt": "{question} is 7 right ?",
        "reward.reward_kwargs.solver.validity_bonus": 0.25,
    }
    command = [sys.executable, "-m", "mmupt", "self-improve", "mmupt_tiny_writer", "--rounds", "1"]
    written = [as_override(key, value) for key, value in overrides.items()]
    subprocess.run([*command, "--folder", str(folder), *SMALL, *written], check=True, timeout=HANG_SECONDS)

    (candidates, questions, run) = (
        [json.loads(line) for line in (round_folder(folder, 1) / "synthesis" / "candidates.jsonl").open()],
        pq.read_table(round_folder(folder, 1) / "synthesis" / "train.parquet").to_pylist(),
        round_folder(folder, 1) / "run",
    )
    assert len({candidate["id"] for candidate in candidates}) == FIGURES
    _check_writer(round_folder(folder, 1) / "writer")
    assert {question["id"] for question in questions} <= {candidate["id"] for candidate in candidates}
    texts = {row["prompt"][0]["content"].removeprefix("<image>").strip() for row in questions}
    for step in (1, 2):
        lines = [json.loads(line) for line in (run / "rollouts" / f"{step}.jsonl").open()]
        assert len(lines) == 4 * 4
        for line in lines:
            (prompt,) = re.findall(r"user\s+(.*?)\s+assistant", line["input"])
            assert prompt in texts
    first = read_round(folder, 1)
    assert set(first.majority_ratios) == {1, 2} and first.label_accuracy is None
    assert len(first.scores["greedy accuracy"].per_question) == 16
    assert first.synthesis is not None and first.synthesis["kept"] == len(questions)
    assert set(first.writer_rewards) == {1}
    policy = Path(read_policy(folder, 1))
    before, after = (load_file(path / "model.safetensors") for path in (BASE, policy))
    assert any(not before[name].equal(after[name]) for name in before)
    assert json.loads((folder / "rounds.json").read_text())["stopped"] is None


def _check_writer(run: Path) -> None:
    """Assert that the writer was trained on the prompts of synthesis with rewards in range, and that it changed."""
    lines = [json.loads(line) for line in (run / "rollouts" / "1.jsonl").open()]
    prompts = {re.search(r"user\s+(.*?)\s+assistant", line["input"])[1] for line in lines}  # type: ignore[index]
    assert prompts == {"ask a question about this figure ."} and len(lines) == 4 * 4
    assert all(-2 <= line["score"] <= 0.5 - 1 / 4 + 0.25 for line in lines)
    # Every term is a multiple of 1/8: shares of eight answers, shares of four questions, and the bonus.
    assert all((8 * line["score"]).is_integer() for line in lines)
    assert scalars(run)["critic/rewards/mean"][1] == pytest.approx(sum(line["score"] for line in lines) / len(lines))
    base, writer = (load_file(path / "model.safetensors") for path in (BASE, run / "model"))
    assert any(not base[name].equal(writer[name]) for name in base)
