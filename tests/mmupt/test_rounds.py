"""Rounds of self-improvement: policies and reports of each round, restarts after a kill, collapse, and the writer."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_runs import write_events
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from mmupt.benchmarks import Question
from mmupt.compose import RecipeError, load_recipe
from mmupt.evaluation.response_files import Response, write_responses
from mmupt.evaluation.verdicts import JudgedFile, Verdict
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE
from mmupt.self_improvement import run_rounds as module
from mmupt.self_improvement.rounds import Round, agreement, best_round, find_collapse_of, plot, read_round, render
from mmupt.self_improvement.run_rounds import read_policy, self_improve
from mmupt.synthesis.run_synthesis import load_synthesis_config
from mmupt_data.figure_task import write_figures
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.answers import Comparison
from verl_ext.collapse import CollapseRule
from verl_ext.scores import Score

pytestmark = pytest.mark.usefixtures("undrawn")

QUESTIONS = 40


def scores(right: int) -> dict[str, Score]:
    """Scores of an evaluation with `right` correct greedy answers of 40."""
    greedy = Score(tuple(float(number < right) for number in range(QUESTIONS)))
    return {"greedy accuracy": greedy, "pass@2": Score((1.0,) * QUESTIONS)}


def finished(number: int, before: int, after: int, ratios: list[float]) -> Round:
    """A round with numbers of correct answers before and after it, and a majority ratio per step."""
    return Round(number, scores(after), scores(before), dict(enumerate(ratios, start=1)), None, None, None, {})


def test_the_best_round_is_the_earliest_with_the_highest_accuracy() -> None:
    rounds = [finished(1, 10, 30, [0.5]), finished(2, 30, 30, [0.5]), finished(3, 30, 20, [0.5])]
    assert best_round(rounds) == 1
    assert best_round([finished(1, 10, 10, [0.5])]) == 0


def test_a_round_has_collapsed_if_accuracy_falls_while_the_majority_ratio_rises() -> None:
    rising = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
    good = finished(1, 10, 36, rising)
    assert find_collapse_of([good], CollapseRule()) is None
    higher = [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]
    collapse = find_collapse_of([good, finished(2, 36, 16, higher)], CollapseRule())
    assert collapse is not None and collapse.measure == "greedy accuracy"
    falling = [0.75, 0.7, 0.65, 0.6, 0.55, 0.5]
    assert find_collapse_of([good, finished(2, 36, 16, falling)], CollapseRule()) is None
    assert find_collapse_of([good, finished(2, 36, 35, higher)], CollapseRule()) is None


def judged(answers: Mapping[str, Sequence[str]], comparison: Comparison = Comparison()) -> JudgedFile:
    """An evaluation with these samples per question."""
    questions = {
        id_: Question(id_, "made-up", "?", "a", ("1/2", "3") if id_ == "lettered" else None, "1", {}) for id_ in answers
    }
    verdicts = [
        Verdict(Response(id_, "sample", number, answer), answer, {"own": False})
        for id_, samples in answers.items()
        for number, answer in enumerate(samples)
    ]
    return JudgedFile(Path("file"), {}, questions, verdicts, [], comparison)


@given(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(["1", "2", "1/2", "0.5"])))
def test_a_policy_agrees_with_itself(majority: dict[str, str]) -> None:
    evaluation = judged({id_: [answer, answer] for id_, answer in majority.items()})
    assert agreement(evaluation, evaluation) == (1.0 if majority else None)


def test_agreement_compares_majority_answers_by_value_on_common_questions() -> None:
    before = {"a": ["1/2"] * 2, "b": ["3"] * 2, "c": ["9"] * 2, "tied": ["1", "2"]}
    after = {"a": ["0.5"] * 2, "b": ["4"] * 2, "d": ["9"] * 2, "tied": ["1", "1"]}
    assert agreement(judged(before), judged(after)) == 0.5


def test_agreement_uses_the_comparison_of_the_run_and_the_options() -> None:
    before, after = ({"a": [answer] * 2} for answer in ("no", "No."))
    assert agreement(judged(before), judged(after)) == 1.0
    mathruler = Comparison(rule="mathruler")
    assert agreement(judged(before, mathruler), judged(after, mathruler)) == 0.0
    assert agreement(judged({"lettered": ["A", "A"]}), judged({"lettered": ["0.5", "0.5"]})) == 1.0


def test_rounds_extract_answers_like_the_run(phases: "Phases", tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    self_improve("mmupt_tiny_self_improve", 1, folder, [])
    # 10 of 40 answers have changed.
    assert read_round(folder, 1).agreement == 0.75
    for file in (folder / "round_1" / "run" / "evaluation").glob("*.parameters.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "extraction": "answer_tag"}))
    # All answers are in boxes, so no response has an answer tag and there is no majority.
    assert read_round(folder, 1).agreement is None


def test_the_table_has_a_row_for_the_base_model_and_for_each_round() -> None:
    synthesis = {"kept": 30, "candidates": 40, "distinct_questions": 0.5}
    first = Round(1, scores(30), scores(10), {1: 0.5, 2: 0.75}, 0.9, synthesis, 0.6, {})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render([first]).splitlines()]
    assert lines[2][:3] == ["before", "25.0 ± 6.9", "100.0 ± 0.0"]
    assert lines[3] == ["1", "75.0 ± 6.9", "100.0 ± 0.0", "0.50 → 0.75", "90.0", "30 of 40", "50.0", "60.0"]


def test_the_table_shows_the_rewards_of_a_trained_writer() -> None:
    first, second = finished(1, 10, 20, [0.5]), finished(2, 20, 30, [0.5])
    head, _, *lines = render([first, replace(second, writer_rewards={1: -0.5, 2: -0.1, 3: 0.25})]).splitlines()
    assert head.endswith("| writer's reward |")
    assert [line.split("|")[-2].strip() for line in lines] == ["", "", "-0.50 → 0.25"]
    assert "writer" not in render([first, second])


def test_rounds_are_plotted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert plot([finished(1, 10, 20, [0.5, 0.75]), finished(2, 20, 30, [])]).startswith(b"\x89PNG")


class Phases:
    """Replaces the processes of rounds: writes the files of each phase, and can fail before a phase."""

    def __init__(self, data: Path, right: Callable[[int], int]) -> None:
        self.data, self.right = data, right
        self.ran: list[str] = []
        self.synthesis: list[str] = []
        self.writer: list[str] = []
        self.fails_before: str | None = None

    def __call__(self, command: list[str], check: bool, env: dict[str, str]) -> None:
        name = command[3]
        options = dict(argument.split("=", 1) for argument in command[4:] if "=" in argument)
        folder = Path((options.get("output") or options["mmupt.run_folder"]).strip("'"))
        assert check and env[RUN_FOLDER_VARIABLE] == str(folder)
        number = int(folder.parent.name.removeprefix("round_"))
        if self.fails_before == f"{name} {number}":
            raise subprocess.CalledProcessError(1, command)
        policy = (options.get("model") or options["actor_rollout_ref.model.path"]).strip("'")
        self.ran.append(f"{name} {number} from {policy}")
        folder.mkdir(parents=True, exist_ok=True)
        if name == "synthesize":
            self.synthesis = command[4:]
            facts = {"kept": 9, "candidates": 10, "distinct_questions": 1.0}
            (folder / "report.json").write_text(json.dumps({"strategies": {"all": facts}}))
            return
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "config.json").touch()
        if folder.name == "writer":
            self.writer = command[5:]
            write_events(folder / "tensorboard", 0, {"critic/rewards/mean": {1: -0.5, 2: -0.25}})
            return
        write_events(
            folder / "tensorboard", 0, {"vote/majority_ratio": {step: 0.4 + 0.05 * step for step in range(1, 9)}}
        )
        for model, right in (("before", self.right(number - 1)), ("after", self.right(number))):
            file = folder / "evaluation" / f"{model}.jsonl"
            if not file.exists():
                texts = [f"so \\boxed{{{7 if question < right else 0}}}" for question in range(QUESTIONS)]
                responses = [Response(f"q{question}", "greedy", 0, text, 5) for question, text in enumerate(texts)]
                responses += [Response(f"q{q}", "sample", k, text, 5) for q, text in enumerate(texts) for k in range(2)]
                write_responses(file, responses, {"data": {str(self.data): "sha"}, "model": model})


@pytest.fixture
def phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phases:
    rows = [Row(f"q{number}", "made-up", f"what is {number} ?", (), "a", "7") for number in range(QUESTIONS)]
    write_dataset(tmp_path, {"test": rows}, {})
    phases = Phases(tmp_path / "test.parquet", lambda number: 10 + 10 * number)
    monkeypatch.setattr(module.subprocess, "run", phases)
    monkeypatch.setattr(module, "prepare_data_sets", lambda _: None)
    return phases


def test_a_data_set_that_cannot_be_prepared_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mmupt\.datasets: there is no data set 'figurs'"):
        self_improve("mmupt_tiny_self_improve", 1, tmp_path / "rounds", ["mmupt.datasets=[figurs]"])


def test_each_round_starts_from_the_policy_of_the_round_before(phases: Phases, tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    self_improve("mmupt_tiny_self_improve", 2, folder, [])
    base, first = "recipes/mmupt/tiny/model", f"{folder}/round_1/run/model"
    assert phases.ran == [
        f"synthesize 1 from {base}",
        f"train 1 from {base}",
        f"synthesize 2 from {first}",
        f"train 2 from {first}",
    ]
    content = json.loads((folder / "rounds.json").read_text())
    assert [round_["scores"]["greedy accuracy"]["value"] for round_ in content["rounds"]] == [0.5, 0.75]
    assert content["best_round"] == 2 and content["stopped"] is None
    # The evaluation after a round is the evaluation before the next round.
    before = folder / "round_2" / "run" / "evaluation" / "before.jsonl"
    assert before.read_bytes() == (folder / "round_1" / "run" / "evaluation" / "after.jsonl").read_bytes()


def test_synthesis_uses_the_image_limits_and_chat_template_of_training(phases: Phases, tmp_path: Path) -> None:
    def synthesis_config(*overrides: str) -> DictConfig:
        self_improve("mmupt_tiny_self_improve", 1, tmp_path / str(len(overrides)), ["model=qwen3_5_4b", *overrides])
        return load_synthesis_config(phases.synthesis)

    # Visual tokens of this model cover 32 x 32 px; its chat template has thinking disabled.
    config = synthesis_config()
    assert (config.min_pixels, config.max_pixels) == (262144, 1572864)
    assert config.chat_template_kwargs == {"enable_thinking": False}
    # The recipe can set other limits for synthesis.
    config = synthesis_config("mmupt.self_improve.synthesis=['preset=tiny','max_pixels=4096']")
    assert (config.min_pixels, config.max_pixels) == (262144, 4096)


@pytest.mark.parametrize("phase", ["synthesize 1", "train 1", "synthesize 2", "train 2"])
def test_after_a_kill_finished_rounds_are_not_repeated(phases: Phases, tmp_path: Path, phase: str) -> None:
    phases.fails_before = phase
    with pytest.raises(subprocess.CalledProcessError):
        self_improve("mmupt_tiny_self_improve", 2, tmp_path / "rounds", [])
    before, phases.fails_before = len(phases.ran), None
    self_improve("mmupt_tiny_self_improve", 2, tmp_path / "rounds", [])
    # The unfinished round starts again with synthesis, which reuses its responses.
    synthesis_repeats = phase.startswith("train")
    assert len(phases.ran) == 4 + synthesis_repeats
    assert phases.ran[before].startswith(phase.replace("train", "synthesize"))


def test_rounds_in_a_moved_folder_continue_from_the_policy_in_it(phases: Phases, tmp_path: Path) -> None:
    self_improve("mmupt_tiny_self_improve", 1, tmp_path / "rounds", [])
    moved = (tmp_path / "rounds").rename(tmp_path / "moved")
    self_improve("mmupt_tiny_self_improve", 2, moved, [])
    assert phases.ran[2:] == [f"{phase} 2 from {moved}/round_1/run/model" for phase in ("synthesize", "train")]
    # A policy outside the folder keeps its name.
    (moved / "round_1" / "policy.txt").write_text("Qwen/Qwen2.5-VL-7B-Instruct")
    assert read_policy(moved, 1) == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_further_rounds_with_other_settings_are_refused(phases: Phases, tmp_path: Path) -> None:
    def improve(rounds: int, *overrides: str) -> None:
        self_improve("mmupt_tiny_self_improve", rounds, tmp_path / "rounds", overrides)

    improve(1)
    rate = "actor_rollout_ref.actor.optim.lr"
    with pytest.raises(RecipeError, match=rf"(?s)rounds holds rounds with other settings:\n  {rate}: .* give --folder"):
        improve(2, f"{rate}=0.5")
    # The number of steps may change.
    improve(2, "trainer.total_training_steps=7")
    assert [phase.partition(" from")[0] for phase in phases.ran][2:] == ["synthesize 2", "train 2"]


def test_a_collapse_ends_the_rounds_and_the_best_round_is_named(
    phases: Phases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases.right = lambda number: (10, 36, 8, 4)[number]
    self_improve("mmupt_tiny_self_improve", 3, tmp_path / "rounds", [])
    assert not any("3 from" in phase for phase in phases.ran)
    content = json.loads((tmp_path / "rounds" / "rounds.json").read_text())
    assert content["best_round"] == 1 and "greedy accuracy" in content["stopped"]
    assert f"The best policy is in {tmp_path}/rounds/round_1/run/model" in capsys.readouterr().out
    # With the stop disabled, all rounds run.
    self_improve("mmupt_tiny_self_improve", 3, tmp_path / "on", ["mmupt.stop_on_collapse.enable=false"])
    assert any("train 3 from" in phase for phase in phases.ran)


def test_a_recipe_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set mmupt\.self_improve\.images"):
        self_improve("mmupt_tiny", 1, tmp_path, [])


@pytest.fixture
def figures(tmp_path: Path) -> str:
    """An override with the file of two images."""
    write_figures(tmp_path / "figures", train=2, validation=1, test=1)
    return f"mmupt.self_improve.images={tmp_path}/figures/train.parquet"


def test_each_round_trains_a_writer_from_the_policy_and_synthesizes_with_it(
    phases: Phases, tmp_path: Path, figures: str
) -> None:
    folder = tmp_path / "rounds"
    self_improve("mmupt_tiny_writer", 2, folder, [figures])
    base, first = "recipes/mmupt/tiny/model", f"{folder}/round_1/run/model"
    assert phases.ran == [
        f"train 1 from {base}",
        f"synthesize 1 from {folder}/round_1/writer/model",
        f"train 1 from {base}",
        f"train 2 from {first}",
        f"synthesize 2 from {folder}/round_2/writer/model",
        f"train 2 from {first}",
    ]
    assert read_round(folder, 2).writer_rewards == {1: -0.5, 2: -0.25}
    assert "-0.50 → -0.25" in (folder / "rounds.md").read_text()


def test_the_writer_is_trained_on_the_requests_of_synthesis_with_its_own_reward(
    phases: Phases, tmp_path: Path, figures: str
) -> None:
    overrides = [figures, "method=soft", "data.instruction=is it right ?", "mmupt.self_improve.writer_steps=3"]
    self_improve("mmupt_tiny_self_improve", 1, tmp_path / "rounds", overrides)
    config, _ = load_recipe("mmupt_tiny_self_improve", phases.writer)
    requests = pq.read_table(config.data.train_files[0]).to_pylist()
    assert [row["id"] for row in requests] == [f"figures-main-train-0000{number}-direct-r1" for number in (0, 1)]
    assert {row["prompt"][0]["content"] for row in requests} == {"<image>ask a question about this figure ."}
    assert not list(tmp_path.glob("rounds/round_1/requests/*truth*"))
    assert config.reward.reward_manager.name == "question_writer" and config.trainer.total_training_steps == 3
    assert config.data.instruction is None and config.reward.reward_kwargs.solver.instruction == "is it right ?"
    assert config.trainer.test_freq == -1 and config.mmupt.evaluation_files is None
    assert load_synthesis_config(phases.synthesis).system_prompt is None


def test_after_a_kill_the_writers_training_is_called_again(phases: Phases, tmp_path: Path, figures: str) -> None:
    phases.fails_before = "synthesize 1"
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            self_improve("mmupt_tiny_writer", 1, tmp_path / "rounds", [figures])
    # The same run is called again with the same rows; it detects that it is finished.
    assert phases.ran == ["train 1 from recipes/mmupt/tiny/model"] * 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mmupt.self_improve.writer_steps=-1", "writer_steps must be a whole number of at least 0, not -1"),
        ("mmupt.self_improve.writer_steps=many", "writer_steps must be a number, not 'many'"),
        ("reward.reward_kwargs.solver.samples=1", "samples must be a whole number of at least 2"),
        ("mmupt.self_improve.synthesis=['show_voted_answer=true']", "leave out show_voted_answer"),
        ("mmupt.self_improve.synthesis=['system_prompt=hello']", "leave out show_voted_answer and system_prompt"),
        ("mmupt.self_improve.synthesis=['strategy=direct']", "mmupt.self_improve.synthesis: "),
        ("actor_rollout_ref.rollout.full_determinism=True", "rollout.full_determinism=False"),
    ],
)
def test_invalid_settings_of_a_writer_are_refused_before_the_first_phase(
    phases: Phases, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        self_improve("mmupt_tiny_writer", 1, tmp_path / "rounds", [override])
    assert phases.ran == [] and not (tmp_path / "rounds").exists()
