"""Every script under benchmarks/ runs, once and at its smallest size. The figures mean nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from full_stack import HANG_SECONDS

from benchmarks import collapse_by_reward, self_generated, step_cost, tuning
from mmupt.compose import as_override, load_recipe
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.self_improvement.rounds import round_folder
from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.run_synthesis import load_synthesis_config as synthesis
from mmupt.synthesis.synthesized_dataset import write_candidates
from mmupt.training.run_report import write_report
from mmupt_data import figure_task
from mmupt_data.row_schema import prompts_path
from verl_ext.collapse import History
from verl_ext.datasets.ground_truth import read_truth

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


def run(script: str, *arguments: str) -> str:
    """Run a script, which must succeed; returns its output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        cwd=ROOT,
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


class Launchers:
    """Stand-in for `subprocess.run` of training and self-improvement: composes the recipe and writes a run's files."""

    def __init__(self, folder: Path) -> None:
        figure_task.write_figures(folder, train=4, validation=4, test=4)
        self.folder, self.test = folder, prompts_path(folder, "test")
        self.started: list[str] = []

    def __call__(self, command: list[str], check: bool) -> None:
        assert command[:3] == [sys.executable, "-m", "mmupt"] and check
        name, recipe, *arguments = command[3:]
        self.started.append(name)
        if name == "train":
            self.train(recipe, arguments)
        else:
            options = {name: value for name, value in zip(arguments[:4:2], arguments[1:4:2], strict=True)}
            self.self_improve(recipe, int(options["--rounds"]), Path(options["--folder"]), arguments[4:])

    def train(self, recipe: str, overrides: list[str]) -> None:
        """Write a run with accuracy 0 before training and 1 after it."""
        config, _ = load_recipe(recipe, overrides)
        truth = read_truth([self.test])
        samples = config.mmupt.evaluation_samples
        for name in ("before", "after"):
            responses = [
                Response(id_, mode, sample, rf"\boxed{{{answer if name == 'after' else 'none'}}}", 5)
                for id_, answer in truth.items()
                for mode, sample in (("greedy", 0), *(("sample", sample) for sample in range(samples)))
            ]
            parameters = {"model": name, "data": {str(self.test): "sha"}, "samples": samples, "temperature": 1.0}
            write_responses(Path(config.mmupt.run_folder) / "evaluation" / f"{name}.jsonl", responses, parameters)
        history, last = History(Path(config.mmupt.run_folder) / "history.jsonl"), config.trainer.total_training_steps
        for step in (0, last):
            history.add_validation(step, {"a": [1.0] + [0.0] * (config.actor_rollout_ref.rollout.val_kwargs.n - 1)})
        history.add_majority_ratio(last, 0.5)
        write_report(Path(config.mmupt.run_folder))

    def self_improve(self, recipe: str, rounds: int, folder: Path, overrides: list[str]) -> None:
        """Write rounds, each with an answerable and an unanswerable question."""
        config, _ = load_recipe(recipe, overrides)
        assert synthesis([*config.mmupt.self_improve.synthesis, "model=m", "data=d"]).limit > 0
        known = self_generated.figures_of(prompts_path(self.folder, "train"), "train", 0)
        id_, figure = next(iter(known.items()))
        questions = (figure_task.questions(figure)[0].phrasings[0], "why ?")
        candidates = [
            JudgedCandidate(Candidate(f"{id_}-{text}", id_, "direct", "i", None, "s", text, text)) for text in questions
        ]
        for number in range(1, rounds + 1):
            target = round_folder(folder, number)
            (target / "synthesis").mkdir(parents=True, exist_ok=True)
            write_candidates(target / "synthesis" / "candidates.jsonl", candidates)
            self.train(recipe, [*overrides, f"mmupt.run_folder={target / 'run'}"])
        (folder / "rounds.json").write_text(json.dumps({"rounds": [{}] * rounds}))


@pytest.fixture
def launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launchers:
    stand_in = Launchers(tmp_path / "datasets" / "figures")
    monkeypatch.setattr(self_generated, "FOLDER", tmp_path / "datasets")
    for module in (collapse_by_reward, self_generated, tuning):
        monkeypatch.setattr(module.subprocess, "run", stand_in)
    return stand_in


def test_tuning_runs_every_trial_once_and_prints_all(
    launchers: Launchers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--methods", "mmupt", "stic", "--folder", str(tmp_path / "tuning")]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["tuning.py", *arguments])
        tuning.main()
        rows = capsys.readouterr().out.splitlines()[-7:]
        assert [row.split("|")[1].strip() for row in rows] == ["mmupt"] * 3 + ["stic"] * 4
        assert all(row.count("100.0") == 2 for row in rows)
    # The second call finds all trials finished.
    assert len(launchers.started) == 3 + 4


def test_collapse_by_reward_trains_every_method_once_and_prints_and_draws_all(
    launchers: Launchers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "collapse"
    arguments = ["--methods", "mmupt", "scrl", "--recipe", "mmupt_tiny", "--validations", "10", "--folder", str(folder)]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["collapse_by_reward.py", *arguments, "--picture", str(folder / "all.png")])
        collapse_by_reward.main()
        rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines()[-3:]]
        trained = [[name, "200", "100.0 ± 0.0", "100.0 ± 0.0", "100.0 (step 0)", "100.0"] for name in ("mmupt", "scrl")]
        assert rows == [["base", "", "0.0 ± 0.0", "0.0 ± 0.0", "", ""], *trained]
    assert (folder / "all.png").read_bytes().startswith(b"\x89PNG")
    # The second call finds both runs finished.
    assert len(launchers.started) == 2


def test_self_generated_questions_are_compared_with_original_ones(
    launchers: Launchers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["self_generated.py", "--seeds", "1", "--folder", str(tmp_path / "compared")])
    self_generated.main()
    text = capsys.readouterr().out
    assert launchers.started == ["self-improve", "self-improve", "train"]
    assert "after round 3" in text and "one round - original, greedy accuracy: +0.0 ± 0.0 points" in text
    assert text.count("50.0 % of 2 questions can be answered") == 4
