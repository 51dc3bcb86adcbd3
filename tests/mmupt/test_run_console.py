"""The console of a run: its head, the phases of its start, and the file that its steps are read from."""

from pathlib import Path

import pytest

from mmupt.compose import load_recipe
from mmupt.console.events import Follow, read_event
from mmupt.training import recipe_run, run_console
from mmupt.training.run_console import AGENT_LOOP, PHASES_OF_ACTORS, follow_steps, head_of, take_last_begun

ACTORS = (
    "TransferQueueController",
    "a1b2WorkerDict_0:0",
    "reward_loop_worker_0",
    "vllm_server_0_0",
    "agent_loop_worker_0_5f3c",
)


def test_the_phases_of_a_start_begin_once_and_in_order() -> None:
    left = {**PHASES_OF_ACTORS, AGENT_LOOP: "first validation"}
    begun = [take_last_begun(ACTORS[:count], left) for count in range(len(ACTORS) + 1)]
    assert begun == [None, "start the trainer", "load the model", None, "start the engine", "first validation"]
    assert left == {}


def test_phases_that_pass_between_two_polls_are_skipped() -> None:
    left = dict(PHASES_OF_ACTORS)
    assert take_last_begun(ACTORS[:2], left) == "load the model"
    assert list(left.values()) == ["start the engine"]


def test_the_head_names_recipe_method_data_and_output(elsewhere: Path) -> None:
    config = recipe_run.prepare_run("mmupt_tiny", ["trainer.total_training_steps=3"])
    rows = dict(head_of(config, ["trainer.total_training_steps=3"]).rows)
    assert rows["recipe"] == "mmupt_tiny trainer.total_training_steps=3"
    assert rows["method"] == "majority_vote, 3 steps of 32 prompts, 8 responses each"
    assert rows["data"] == "trained on 1,536 questions, validation 256 questions, evaluation 512 questions"
    assert rows["writes to"] == "runs/mmupt_tiny, all output to runs/mmupt_tiny/logs/train.log"


def test_the_head_counts_voting_and_trained_responses_separately_if_they_differ() -> None:
    config, _ = load_recipe(
        "mmupt_tiny", ["reward.reward_kwargs.vote.vote_n=16", "data.train_files=[]", "data.val_files=[]"]
    )
    config.mmupt.evaluation_files = None
    method = dict(head_of(config, []).rows)["method"]
    assert method.endswith("of 32 prompts, 16 responses each, 8 trained on")


def test_the_head_leaves_unreadable_files_to_the_checks(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("no parquet")
    config, _ = load_recipe("mmupt_tiny", [f"data.train_files={tmp_path / 'train.parquet'}", "data.val_files=[]"])
    config.mmupt.evaluation_files = None
    assert dict(head_of(config, []).rows)["data"] == ""


def test_the_steps_of_a_run_are_read_from_the_file_that_verl_logs_to(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events"
    events.touch()
    monkeypatch.setenv("MMUPT_CONSOLE", str(events))
    config = recipe_run.prepare_run("mmupt_tiny", ["trainer.logger=[console]"])
    earlier_log = elsewhere / "runs" / "mmupt_tiny" / "mmupt" / "mmupt_tiny.jsonl"
    earlier_log.parent.mkdir(parents=True)
    earlier_log.write_text('{"step": 1, "data": {}}\n')
    follow_steps(config, 20)
    assert config.trainer.logger == ["console", "file"] and not earlier_log.exists()
    *_, last = events.read_text().splitlines()
    assert read_event(last) == Follow(str(earlier_log), 20)

    from verl.utils.tracking import FileLogger

    logger = FileLogger(config.trainer.project_name, config.trainer.experiment_name)
    logger.finish()
    assert Path(logger.filepath) == earlier_log


def test_a_step_log_that_the_user_asked_for_is_kept_when_the_run_restarts(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MMUPT_CONSOLE", raising=False)
    config = recipe_run.prepare_run("mmupt_tiny", ["trainer.logger=[file]"])
    file = elsewhere / "runs" / "mmupt_tiny" / "mmupt" / "mmupt_tiny.jsonl"
    file.parent.mkdir(parents=True)
    for start in ("first", "second"):
        file.write_text(start)
        follow_steps(config, 20)
    assert config.trainer.logger == ["file"] and not file.exists()
    assert [file.with_suffix(f".{number}.jsonl").read_text() for number in (1, 2)] == ["first", "second"]


def test_the_step_log_that_environment_variables_name_is_read(tmp_path: Path) -> None:
    config, _ = load_recipe("mmupt_tiny")
    assert run_console._metrics_file(config, {"VERL_FILE_LOGGER_PATH": "/own.jsonl"}) == Path("/own.jsonl")
    root = {"VERL_FILE_LOGGER_ROOT": str(tmp_path)}
    assert run_console._metrics_file(config, root) == tmp_path / "mmupt" / "mmupt_tiny.jsonl"
