"""Runs of the baselines: rows, trainers in order, the final policy, and settings that are refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from baseline_engine import MODEL, Engine, recipe, write_rows
from omegaconf import DictConfig, OmegaConf

from mmupt.baseline_settings import BASELINES, PROMPTS, read_baseline
from mmupt.baselines import stage_runner
from mmupt.baselines.prompt_rows import draw_rows
from mmupt.compose import RecipeError, load_recipe
from mmupt.evaluation import response_cache
from mmupt.prompt_templates import read_prompt
from mmupt.recipe_files import CONFIG_FOLDER
from mmupt.tiny.demonstrations import DESCRIBE, JUDGE
from mmupt.training import recipe_run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path)


def test_rows_are_drawn_with_a_seed_and_without_excluded_rows(data: Path, tmp_path: Path) -> None:
    listing = tmp_path / "dropped.json"
    listing.write_text(json.dumps({str(data): [{"id": "b"}]}))

    def draw(count: int | None, seed: int = 0) -> list[str]:
        draw_rows(tmp_path / "rows.parquet", [str(data)], str(listing), count, seed)
        return list(pq.read_table(tmp_path / "rows.parquet")["id"].to_pylist())

    assert draw(None) == ["a", "c"]
    assert {tuple(draw(1, seed)) for seed in range(10)} == {("a",), ("c",)}
    assert draw(1, 3) == draw(1, 3)
    with pytest.raises(ValueError, match=r"mmupt\.baseline\.rows=3: only 2 rows of .*train\.parquet can be used"):
        draw(3)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replace the trainers and the processes of stages; return a list that collects each trainer and its model."""
    calls: list[tuple[str, str]] = []

    def train_policy(trainer: str, config: DictConfig, model: str, folder: Path) -> Path:
        assert (folder / stage_runner.FILES[trainer][0]).is_file()
        policy = folder / trainer / "model"
        policy.mkdir(parents=True, exist_ok=True)
        for file in MODEL.iterdir():
            (policy / file.name).write_bytes(file.read_bytes())
        (policy / "trained_by").write_text(trainer)
        calls.append((trainer, model))
        return policy

    def make_set_in_this_process(run_folder: Path, number: int, model: str) -> None:
        stage_runner.make_set(OmegaConf.load(run_folder / "config.yaml"), number, model)

    monkeypatch.setattr(stage_runner, "train_policy", train_policy)
    monkeypatch.setattr(stage_runner, "_make_set_in_process", make_set_in_this_process)
    monkeypatch.setattr(response_cache, "answer_questions", Engine().answers)
    return calls


def saved(config: DictConfig) -> DictConfig:
    """Save a configuration in its run folder and return it."""
    folder = Path(config.mmupt.run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    return config


@pytest.mark.parametrize("method", BASELINES)
def test_a_method_runs_its_trainers_in_order_and_saves_the_last_policy(
    data: Path, tmp_path: Path, trained, method: str
) -> None:
    config, stages = saved(recipe(method, data, tmp_path / "run")), BASELINES[method].stages
    policy = stage_runner.run_baseline(config)
    assert policy == tmp_path / "run" / "model"
    assert (policy / "trained_by").read_text() == stages[-1].trainer
    assert [trainer for trainer, _ in trained] == [stage.trainer for stage in stages]
    # Each trainer starts from the policy of the trainer before it.
    models = [str(MODEL), *(str(tmp_path / "run" / "stages" / name / "model") for name, _ in stages)]
    assert [model for _, model in trained] == models[:-1]
    assert stage_runner.run_baseline(config) == policy and len(trained) == len(stages)


def test_invalid_settings_of_a_later_trainer_are_refused_before_the_first_stage(
    data: Path, tmp_path: Path, trained
) -> None:
    config = recipe("stic", data, tmp_path / "run")
    # SFT is the second stage of STIC.
    config.mmupt.baseline.sft.warmup_share = 2.0
    with pytest.raises(RecipeError, match=r"mmupt\.baseline\.sft: warmup_share must be a number from 0 to less than 1"):
        stage_runner.run_baseline(saved(config))
    assert not (tmp_path / "run" / "stages").exists()


def test_the_second_stage_of_stic_samples_from_the_policy_of_the_first(data: Path, tmp_path: Path, trained) -> None:
    stage_runner.run_baseline(saved(recipe("stic", data, tmp_path / "run")))
    (row, *_) = pq.read_table(tmp_path / "run" / "stages" / "responses.parquet").to_pylist()
    assert row["baseline"]["model"] == str(tmp_path / "run" / "stages" / "dpo" / "model")


def test_a_policy_whose_copy_was_interrupted_by_a_kill_is_copied_again(
    data: Path, tmp_path: Path, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = saved(recipe("lmsi", data, tmp_path / "run"))

    def killed(source: str, target: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_runner, "link_or_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            stage_runner.run_baseline(config)
    assert not (tmp_path / "run" / "model").exists()
    policy = stage_runner.run_baseline(config)
    assert {file.name for file in MODEL.iterdir()} < {file.name for file in policy.iterdir()}


def test_a_folder_with_responses_cannot_continue_with_other_settings(elsewhere: Path, monkeypatch) -> None:
    def start(method: str, *overrides: str) -> None:
        config = recipe_run.prepare_run("mmupt_tiny", [f"method={method}", "mmupt.run_folder=here", *overrides])
        recipe_run._check_continued(config, Path(config.mmupt.run_folder) / "config.yaml")
        saved(config)

    start("lmsi")
    start("lmsi", "mmupt.baseline.rows=5")
    responses = elsewhere / "here" / "stages" / "samples.partial.jsonl"
    responses.parent.mkdir()
    responses.write_text("{}\n")
    start("lmsi", "mmupt.baseline.rows=5", "trainer.logger=[console]")
    for method, overrides, key in (
        ("lmsi", ["mmupt.baseline.rows=6"], "mmupt.baseline.rows"),
        ("srlm", ["mmupt.baseline.rows=5"], "mmupt.baseline.method"),
        ("mmupt", [], "mmupt.baseline.method"),
    ):
        with pytest.raises(RecipeError, match=rf"(?s)holds a run with other settings:.*{key}.*mmupt\.run_folder="):
            start(method, *overrides)


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("mmupt", "mmupt.baseline.method=mmi", r"mmupt\.baseline\.method must be null or one of genixer, lmsi"),
        ("rejection_sft", "data.supervised=False", r"data\.supervised=False does not go with .*rejection_sft"),
        ("lmsi", "data.supervised=True", r"data\.supervised=True does not go with .*=lmsi"),
        ("lmsi", "data.generated_share=0.5", r"data\.generated_share applies to GRPO only"),
        ("mmupt", "mmupt.baseline.rows=5", r"rows=5: method=mmupt is GRPO, which has no such key"),
        ("mmupt", "mmupt.baseline.method=lmsi", r"method=lmsi lacks the method's other keys: use method=lmsi"),
        ("lmsi", "mmupt.baseline.rows=0", r"mmupt\.baseline\.rows must be null or a whole number of at least 1"),
        ("lmsi", "mmupt.baseline.rows=many", r"rows must be null or a whole number of at least 1, not 'many'"),
        ("srlm", "mmupt.baseline.judge_scale=stars", r"judge_scale must be one of points, yes_no"),
        ("srlm", "mmupt.baseline.prompts.judge=nowhere", r"there is no prompt .*baselines/prompts/nowhere\.txt"),
        ("srlm", "mmupt.baseline.prompts.judge=describe", r"prompts\.judge: .* must have \{response\} or \{answer\}"),
        ("stic", "mmupt.baseline.prompts.describe=judge", r"prompts\.describe: .* may have nothing in braces"),
        ("stic", "mmupt.baseline.bad_prompt_share=2", r"bad_prompt_share must be a number from 0 to 1, not 2"),
    ],
)
def test_invalid_settings_of_a_method_are_refused_when_the_recipe_is_composed(
    method: str, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=rf"recipe mmupt_tiny: .*{message}"):
        load_recipe("mmupt_tiny", [f"method={method}", override])


def test_every_baseline_can_be_chosen_as_method() -> None:
    for method in BASELINES:
        assert read_baseline(load_recipe("mmupt_tiny", [f"method={method}"])[0]).method == method


def test_the_tiny_model_is_prompted_with_the_wording_of_its_demonstrations() -> None:
    assert read_prompt("tiny_judge", PROMPTS) == JUDGE
    assert read_prompt("tiny_describe", PROMPTS) == DESCRIBE


def test_every_shipped_prompt_is_used_by_a_recipe() -> None:
    used = {"tiny_judge", "tiny_describe", "tiny_described"}
    used |= set(OmegaConf.load(CONFIG_FOLDER / "baseline.yaml").mmupt.baseline.prompts.values())
    assert {file.stem for file in PROMPTS.glob("*.txt")} == used
