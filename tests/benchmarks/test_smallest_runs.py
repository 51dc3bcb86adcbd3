"""Every script under benchmarks/ runs, once and at its smallest size. The figures mean nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from full_stack import HANG_SECONDS
from omegaconf import OmegaConf

from benchmarks import step_cost, tuning
from mmupt.compose import as_override, load_recipe
from mmupt_data import figure_task
from mmupt_data.prepare import FOLDER

# Also full_stack, so that runs without long tests skip them.
pytestmark = [pytest.mark.benchmark, pytest.mark.full_stack]

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"
STEPS = "import time\nfor step in range(1, 7):\n    print(f'step:{step} - ', flush=True)\n    time.sleep(0.2)"
# Arguments of the scripts that need no other files, and a part of their last output.
SMALLEST = {
    "answers.py": (["--limit", "2"], "## Contested pairs"),
    "collapse_alarm.py": (["--runs", "1"], "| collapse by 10 points at once | 1 "),
    "hostile_answers.py": (["--answers", "100"], "| 2 | math_verify |"),
    "leakage_search.py": (
        ["--copies", "2", "--unrelated", "4", "--rows", "4"],
        "| comparison, fingerprints kept, 4 and 4 rows",
    ),
    "memory_leaks.py": (["--", sys.executable, "-c", STEPS], '"status": 0'),
    "peak_memory.py": ([sys.executable, "-c", "pass"], '"status": 0'),
    "process_cost.py": (["--", sys.executable, "-c", STEPS], "| **all** |"),
    "prepare_data.py": (["--rows", "4", "--side", "56"], "ratio of images per second"),
    "rescore.py": (["--questions", "10", "--repeats", "1"], "scoring / peer"),
    "rollout_cost.py": (["--responses", "2", "--side", "112", "--repeats", "1"], "plain veRL / ours"),
    "votes.py": (["--prompts", "4", "--responses", "4"], "| 64 | 4 |"),
}
# Overrides of the shortest training.
SMALLEST_STEP = (
    "trainer.total_training_steps=1",
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
)


def run(script: str, *arguments: str, folder: Path = ROOT) -> str:
    """Run a script in a folder. It must succeed; returns its output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.returncode == 0
    return process.stdout


@pytest.mark.parametrize("script", SMALLEST)
def test_a_script_runs_to_its_end(script: str) -> None:
    arguments, last_output = SMALLEST[script]
    assert last_output in run(script, *arguments)


def test_the_import_of_logs_matches_the_questions_of_all_benchmarks(tmp_path: Path) -> None:
    row = {"question": "How many?", "choices": None, "unit": None, "precision": None, "answer": "3"}
    row |= {"question_type": "free_form", "answer_type": "integer", "metadata": {}}
    vision = {
        "id": "1",
        "question": "How many? <image1>",
        "options": [],
        "answer": "3",
        "level": 1,
        "subject": "algebra",
    }
    we_math = {"ID": "1", "question": "How many?", "option": "A. 3; B. 4", "answer": "A", "key": "2steps_1"}
    we_math |= {"knowledge concept": "counting", "question number": 1, "image_path": "1.png"}
    verse = {"sample_index": "1", "problem_index": "1", "problem_version": "Text_Only", "question": "How many?"}
    verse |= {
        "question_type": "free-form",
        "answer": "3",
        "metadata": {},
        "query_wo": "How many?",
        "query_cot": "Reason first. How many?",
    }
    for name, content in {
        "MathVista/data/testmini.json": {"1": row},
        "MathVista/data/query.json": {"1": "Question: How many?"},
        "We-Math/data/testmini.json": [we_math],
        "MathVerse/data/testmini_text_only.json": [verse],
        # One JSON line.
        "MATH-V/data/test.jsonl": vision,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    lines = run("import_matching.py", str(tmp_path)).splitlines()
    assert {line.partition(",")[0] for line in lines} == {"mathvista", "mathvision", "wemath", "mathverse"}
    for line in lines:
        assert "1 of 1 matched, 0 wrongly; refused: none" in line


def test_a_step_of_plain_verl_and_of_trl_is_measured() -> None:
    variables = "ray_kwargs.ray_init.runtime_env.env_vars"
    overrides = {
        "data.train_batch_size": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.rollout.n": 4,
        # A short start, unlike plain veRL's: forked workers, and a vLLM that compiles nothing.
        "mmupt.fork_workers": True,
        "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend": "uni",
        f"{variables}.TORCHDYNAMO_DISABLE": "1",
        f"{variables}.VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        f"{variables}.RAY_prestart_worker_first_driver": "0",
    }
    # TRL has no release for Python 3.10.
    contenders = ["plain", "trl"] if sys.version_info >= (3, 11) else ["plain"]
    forced = [f"++{as_override(key, value)}" for key, value in overrides.items()]
    result = json.loads(run("step_cost.py", *contenders, "--steps", "2", "--overrides", *forced))
    assert [*result] == contenders
    for name in contenders:
        assert result[name]["step s"] > 0 and result[name]["start-up s"] > 0 and result[name]["peak GiB"] > 0


def test_ratios_compare_other_contenders_with_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_verl(folder: Path, steps: int, overrides: Sequence[str]) -> step_cost.Run:
        factor = 2 if {*step_cost.PLAIN} <= {*overrides} else 1
        return step_cost.Run(10.0 * factor, [3.0 * factor] * (steps - 1), [12.0] * (steps - 1), 4.0 * factor)

    monkeypatch.setattr(step_cost, "run_verl", run_verl)
    monkeypatch.setattr(sys, "argv", ["step_cost.py", "ours", "plain"])
    step_cost.main()
    result = json.loads(capsys.readouterr().out)
    assert result["ours"]["start-up s"] == 10 and result["plain"]["step s"] == 6
    assert result["plain / ours"] == {"start-up s": 2, "step s": 2, "peak GiB": 2}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to start training from, with a small data set of figures."""
    folder = tmp_path_factory.mktemp("figures")
    figure_task.write_figures(folder / FOLDER / "figures", train=16, validation=4, test=4)
    return folder


@pytest.fixture(scope="module")
def collapse(figures: Path) -> str:
    """The output of collapse_by_reward.py for a run of mmupt_tiny in the folder `collapse/mmupt`."""
    arguments = ["--methods", "mmupt", "--recipe", "mmupt_tiny", "--times", "2", "--validations", "2"]
    arguments += ["--folder", "collapse", "--picture", "collapse/all.png"]
    return run("collapse_by_reward.py", *arguments, *SMALLEST_STEP, folder=figures)


def test_collapse_by_reward_trains_prints_and_draws_a_method(collapse: str, figures: Path) -> None:
    base, trained = ([cell.strip() for cell in row.split("|")[1:-1]] for row in collapse.splitlines()[-2:])
    assert base[:2] == ["base", ""] and trained[:2] == ["mmupt", "2"]
    assert (figures / "collapse" / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("collapse")
def test_tuning_trains_what_has_not_finished_and_prints_every_trial(figures: Path) -> None:
    trials = figures / "tuning" / "mmupt_tiny" / "mmupt"
    # A finished run, with 16 samples per question, takes the place of two of the three trials.
    for name in ("lr_3e-05", "lr_0.0001"):
        shutil.copytree(figures / "collapse" / "mmupt", trials / name)
    overrides = [*SMALLEST_STEP, "mmupt.evaluation_samples=16"]
    text = run("tuning.py", "--methods", "mmupt", "--folder", "tuning", *overrides, folder=figures)
    rows = [row.split("|") for row in text.splitlines()[-3:]]
    assert {row[2].strip() for row in rows} == {"lr_3e-05", "lr_0.0001", "lr_0.0003"}
    assert all(0 <= float(row[3]) <= 100 for row in rows)
    config = OmegaConf.load(trials / "lr_0.0003" / "config.yaml")
    assert config.actor_rollout_ref.actor.optim.lr == 3e-4 and config.mmupt.seed == tuning.SEED


def test_self_generated_questions_are_compared_with_original_ones(figures: Path) -> None:
    settings = load_recipe("mmupt_tiny_self_improve", [])[0].mmupt.self_improve.synthesis
    settings = [setting for setting in settings if not setting.startswith("limit=")]
    images = as_override("mmupt.self_improve.synthesis", [*settings, "limit=4"])
    arguments = ["--seeds", "1", "--rounds", "1", "--folder", "compared", images]
    text = run("self_generated.py", *arguments, *SMALLEST_STEP, folder=figures)
    assert "after round 1" in text and "one round - original, greedy accuracy: " in text
    assert text.count("questions can be answered") == 2
