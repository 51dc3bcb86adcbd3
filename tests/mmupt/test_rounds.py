"""Rounds are made once each, go on after a kill, are compared on the same questions, and end when they collapse."""

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
    """Of forty questions, so many are right."""
    each = Score(tuple(float(number < right) for number in range(QUESTIONS)))
    return {"greedy accuracy": each, "pass@2": Score((1.0,) * QUESTIONS)}


def made(number: int, before: int, right: int, shares: list[float]) -> Round:
    of_step = dict(enumerate(shares, start=1))
    return Round(number, scores(right), scores(before), of_step, None, None, None, {})


def test_the_best_round_is_the_earliest_of_the_highest_accuracy() -> None:
    rounds = [made(1, 10, 30, [0.5]), made(2, 30, 30, [0.5]), made(3, 30, 20, [0.5])]
    assert best_round(rounds) == 1
    assert best_round([made(1, 10, 10, [0.5])]) == 0


def test_a_round_that_falls_while_the_share_rises_has_collapsed() -> None:
    rising = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
    good = made(1, 10, 36, rising)
    assert find_collapse_of([good], CollapseRule()) is None
    higher = [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]
    found = find_collapse_of([good, made(2, 36, 16, higher)], CollapseRule())
    assert found is not None and found.measure == "greedy accuracy"
    falling = [0.75, 0.7, 0.65, 0.6, 0.55, 0.5]
    assert find_collapse_of([good, made(2, 36, 16, falling)], CollapseRule()) is None
    assert find_collapse_of([good, made(2, 36, 35, higher)], CollapseRule()) is None


def judged(answers: Mapping[str, Sequence[str]], comparison: Comparison = Comparison()) -> JudgedFile:
    """An evaluation with these samples of each question."""
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
def test_a_policy_agrees_with_itself(elected: dict[str, str]) -> None:
    evaluation = judged({id_: [answer, answer] for id_, answer in elected.items()})
    assert agreement(evaluation, evaluation) == (1.0 if elected else None)


def test_agreement_is_by_what_answers_say_and_of_common_questions_alone() -> None:
    before = {"a": ["1/2"] * 2, "b": ["3"] * 2, "c": ["9"] * 2, "tied": ["1", "2"]}
    after = {"a": ["0.5"] * 2, "b": ["4"] * 2, "d": ["9"] * 2, "tied": ["1", "1"]}
    assert agreement(judged(before), judged(after)) == 0.5


def test_agreement_compares_as_the_run_does_and_knows_the_options() -> None:
    before, after = ({"a": [answer] * 2} for answer in ("no", "No."))
    assert agreement(judged(before), judged(after)) == 1.0
    mathruler = Comparison(rule="mathruler")
    assert agreement(judged(before, mathruler), judged(after, mathruler)) == 0.0
    assert agreement(judged({"lettered": ["A", "A"]}), judged({"lettered": ["0.5", "0.5"]})) == 1.0


def test_rounds_read_answers_where_the_run_found_them(phases: "Phases", tmp_path: Path) -> None:
    folder = tmp_path / "rounds"
    self_improve("mmupt_tiny_self_improve", 1, folder, [])
    # Ten of forty answers have changed.
    assert read_round(folder, 1).agreement == 0.75
    for file in (folder / "round_1" / "run" / "evaluation").glob("*.parameters.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "extraction": "answer_tag"}))
    # All answers are in boxes: nobody elects anything.
    assert read_round(folder, 1).agreement is None


def test_the_table_has_a_line_for_the_model_before_and_for_each_round() -> None:
    written = {"kept": 30, "candidates": 40, "distinct_questions": 0.5}
    one = Round(1, scores(30), scores(10), {1: 0.5, 2: 0.75}, 0.9, written, 0.6, {})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render([one]).splitlines()]
    assert lines[2][:3] == ["before", "25.0 ± 6.9", "100.0 ± 0.0"]
    assert lines[3] == ["1", "75.0 ± 6.9", "100.0 ± 0.0", "0.50 → 0.75", "90.0", "30 of 40", "50.0", "60.0"]


def test_the_table_has_the_rewards_of_the_writer_where_one_was_trained() -> None:
    before, plain = made(1, 10, 20, [0.5]), made(2, 20, 30, [0.5])
    head, _, *lines = render([before, replace(plain, writer_rewards={1: -0.5, 2: -0.1, 3: 0.25})]).splitlines()
    assert head.endswith("| writer's reward |")
    assert [line.split("|")[-2].strip() for line in lines] == ["", "", "-0.50 → 0.25"]
    assert "writer" not in render([before, plain])


def test_rounds_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert plot([made(1, 10, 20, [0.5, 0.75]), made(2, 20, 30, [])]).startswith(b"\x89PNG")


class Phases:
    """Stands for the phases of rounds: writes what they leave, and dies before one of them."""

    def __init__(self, data: Path, right: Callable[[int], int]) -> None:
        self.data, self.right = data, right
        self.ran: list[str] = []
        self.synthesis: list[str] = []
        self.writer: list[str] = []
        self.dies_before: str | None = None

    def __call__(self, command: list[str], check: bool, env: dict[str, str]) -> None:
        name = command[3]
        options = dict(one.split("=", 1) for one in command[4:] if "=" in one)
        folder = Path((options.get("output") or options["mmupt.run_folder"]).strip("'"))
        assert check and env[RUN_FOLDER_VARIABLE] == str(folder)
        number = int(folder.parent.name.removeprefix("round_"))
        if self.dies_before == f"{name} {number}":
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
        for moment, right in (("before", self.right(number - 1)), ("after", self.right(number))):
            file = folder / "evaluation" / f"{moment}.jsonl"
            if not file.exists():
                texts = [f"so \\boxed{{{7 if question < right else 0}}}" for question in range(QUESTIONS)]
                responses = [Response(f"q{question}", "greedy", 0, text, 5) for question, text in enumerate(texts)]
                responses += [Response(f"q{q}", "sample", k, text, 5) for q, text in enumerate(texts) for k in range(2)]
                write_responses(file, responses, {"data": {str(self.data): "sha"}, "model": moment})


@pytest.fixture
def phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phases:
    rows = [Row(f"q{number}", "made-up", f"what is {number} ?", (), "a", "7") for number in range(QUESTIONS)]
    write_dataset(tmp_path, {"test": rows}, {})
    found = Phases(tmp_path / "test.parquet", lambda number: 10 + 10 * number)
    monkeypatch.setattr(module.subprocess, "run", found)
    monkeypatch.setattr(module, "prepare_data_sets", lambda _: None)
    return found


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
    assert [one["scores"]["greedy accuracy"]["value"] for one in content["rounds"]] == [0.5, 0.75]
    assert content["best_round"] == 2 and content["stopped"] is None
    # The evaluation after a round is the one before the next.
    before = folder / "round_2" / "run" / "evaluation" / "before.jsonl"
    assert before.read_bytes() == (folder / "round_1" / "run" / "evaluation" / "after.jsonl").read_bytes()


def test_questions_are_written_about_images_as_the_policy_is_trained_on_them(phases: Phases, tmp_path: Path) -> None:
    def asked(*overrides: str) -> DictConfig:
        self_improve("mmupt_tiny_self_improve", 1, tmp_path / str(len(overrides)), ["model=qwen3_5_4b", *overrides])
        return load_synthesis_config(phases.synthesis)

    # Visual tokens of 32 x 32 px, and a chat template that is told not to think.
    config = asked()
    assert (config.min_pixels, config.max_pixels) == (262144, 1572864)
    assert config.chat_template_kwargs == {"enable_thinking": False}
    # Unless the recipe asks otherwise for the questions.
    config = asked("mmupt.self_improve.synthesis=['preset=tiny','max_pixels=4096']")
    assert (config.min_pixels, config.max_pixels) == (262144, 4096)


@pytest.mark.parametrize("phase", ["synthesize 1", "train 1", "synthesize 2", "train 2"])
def test_after_a_kill_finished_rounds_are_not_made_again(phases: Phases, tmp_path: Path, phase: str) -> None:
    phases.dies_before = phase
    with pytest.raises(subprocess.CalledProcessError):
        self_improve("mmupt_tiny_self_improve", 2, tmp_path / "rounds", [])
    before, phases.dies_before = len(phases.ran), None
    self_improve("mmupt_tiny_self_improve", 2, tmp_path / "rounds", [])
    # A phase that was begun is called again, and goes on by itself.
    begun = phase.startswith("train")
    assert len(phases.ran) == 4 + begun and phases.ran[before].startswith(
        phase.replace("train", "synthesize") if begun else phase
    )


def test_rounds_whose_folder_was_moved_go_on_from_the_policy_in_it(phases: Phases, tmp_path: Path) -> None:
    self_improve("mmupt_tiny_self_improve", 1, tmp_path / "rounds", [])
    moved = (tmp_path / "rounds").rename(tmp_path / "moved")
    self_improve("mmupt_tiny_self_improve", 2, moved, [])
    assert phases.ran[2:] == [f"{phase} 2 from {moved}/round_1/run/model" for phase in ("synthesize", "train")]
    # One from elsewhere is left as it is.
    (moved / "round_1" / "policy.txt").write_text("Qwen/Qwen2.5-VL-7B-Instruct")
    assert read_policy(moved, 1) == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_further_rounds_under_other_settings_are_refused(phases: Phases, tmp_path: Path) -> None:
    def improve(rounds: int, *overrides: str) -> None:
        self_improve("mmupt_tiny_self_improve", rounds, tmp_path / "rounds", overrides)

    improve(1)
    rate = "actor_rollout_ref.actor.optim.lr"
    with pytest.raises(RecipeError, match=rf"(?s)rounds holds rounds with other settings:\n  {rate}: .* give --folder"):
        improve(2, f"{rate}=0.5")
    # Longer rounds are no other method.
    improve(2, "trainer.total_training_steps=7")
    assert [one.partition(" from")[0] for one in phases.ran][2:] == ["synthesize 2", "train 2"]


def test_a_collapse_ends_the_rounds_and_the_best_is_kept(
    phases: Phases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases.right = lambda number: (10, 36, 8, 4)[number]
    self_improve("mmupt_tiny_self_improve", 3, tmp_path / "rounds", [])
    assert not any("3 from" in one for one in phases.ran)
    content = json.loads((tmp_path / "rounds" / "rounds.json").read_text())
    assert content["best_round"] == 1 and "greedy accuracy" in content["stopped"]
    assert f"The best policy is in {tmp_path}/rounds/round_1/run/model" in capsys.readouterr().out
    # Unless it is not to stop.
    self_improve("mmupt_tiny_self_improve", 3, tmp_path / "on", ["mmupt.stop_on_collapse.enable=false"])
    assert any("train 3 from" in one for one in phases.ran)


def test_a_recipe_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"set mmupt\.self_improve\.images"):
        self_improve("mmupt_tiny", 1, tmp_path, [])


@pytest.fixture
def figures(tmp_path: Path) -> str:
    """Two images, as an override."""
    write_figures(tmp_path / "figures", train=2, validation=1, test=1)
    return f"mmupt.self_improve.images={tmp_path}/figures/train.parquet"


def test_a_copy_of_the_policy_learns_to_write_the_questions_that_the_policy_is_trained_on(
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


def test_the_writer_is_trained_on_what_synthesis_asks_and_by_its_own_reward_alone(
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


def test_after_a_kill_a_trained_writer_goes_on_from_where_it_was(phases: Phases, tmp_path: Path, figures: str) -> None:
    phases.dies_before = "synthesize 1"
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            self_improve("mmupt_tiny_writer", 1, tmp_path / "rounds", [figures])
    # The same run is called again, with the same rows, and finds that it is finished.
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
def test_a_writer_that_cannot_be_trained_is_refused_before_anything_starts(
    phases: Phases, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        self_improve("mmupt_tiny_writer", 1, tmp_path / "rounds", [override])
    assert phases.ran == [] and not (tmp_path / "rounds").exists()
