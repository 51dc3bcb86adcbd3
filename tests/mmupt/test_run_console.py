"""What the console shows of a run: its head, the phases of its start, and where its steps are logged."""

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


def test_every_phase_of_a_start_begins_once_and_in_its_order() -> None:
    left = {**PHASES_OF_ACTORS, AGENT_LOOP: "first validation"}
    begun = [take_last_begun(ACTORS[:count], left) for count in range(len(ACTORS) + 1)]
    assert begun == [None, "start the trainer", "load the model", None, "start the engine", "first validation"]
    assert left == {}


def test_phases_that_passed_between_two_looks_are_left_out() -> None:
    left = dict(PHASES_OF_ACTORS)
    assert take_last_begun(ACTORS[:2], left) == "load the model"
    assert list(left.values()) == ["start the engine"]


def test_the_head_says_what_is_trained_on_what_and_where_it_goes(elsewhere: Path) -> None:
    config = recipe_run.prepare_run("mmupt_tiny", ["trainer.total_training_steps=3"])
    rows = dict(head_of(config, ["trainer.total_training_steps=3"]).rows)
    assert rows["recipe"] == "mmupt_tiny trainer.total_training_steps=3"
    assert rows["method"] == "majority_vote, 3 steps of 32 prompts, 8 responses each"
    assert rows["data"] == "trained on 1,536 questions, validation 256 questions, evaluation 512 questions"
    assert rows["writes to"] == "runs/mmupt_tiny, all output to runs/mmupt_tiny/logs/train.log"


def test_the_head_says_how_many_responses_vote_where_not_all_are_trained_on() -> None:
    config, _ = load_recipe(
        "mmupt_tiny", ["reward.reward_kwargs.vote.vote_n=16", "data.train_files=[]", "data.val_files=[]"]
    )
    config.mmupt.evaluation_files = None
    method = dict(head_of(config, []).rows)["method"]
    assert method.endswith("of 32 prompts, 16 responses each, 8 trained on")


def test_a_file_that_cannot_be_read_is_left_to_the_checks(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("no parquet")
    config, _ = load_recipe("mmupt_tiny", [f"data.train_files={tmp_path / 'train.parquet'}", "data.val_files=[]"])
    config.mmupt.evaluation_files = None
    assert dict(head_of(config, []).rows)["data"] == ""


def test_the_steps_of_a_run_are_read_where_verl_logs_them(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events"
    events.touch()
    monkeypatch.setenv("MMUPT_CONSOLE", str(events))
    config = recipe_run.prepare_run("mmupt_tiny", ["trainer.logger=[console]"])
    of_an_earlier_start = elsewhere / "runs" / "mmupt_tiny" / "mmupt" / "mmupt_tiny.jsonl"
    of_an_earlier_start.parent.mkdir(parents=True)
    of_an_earlier_start.write_text('{"step": 1, "data": {}}\n')
    follow_steps(config, 20)
    assert config.trainer.logger == ["console", "file"] and not of_an_earlier_start.exists()
    *_, last = events.read_text().splitlines()
    assert read_event(last) == Follow(str(of_an_earlier_start), 20)

    from verl.utils.tracking import FileLogger

    logger = FileLogger(config.trainer.project_name, config.trainer.experiment_name)
    logger.finish()
    assert Path(logger.filepath) == of_an_earlier_start


def test_a_file_of_steps_that_the_user_wants_is_kept_when_the_run_starts_again(
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


def test_a_file_that_the_user_has_named_for_the_logger_is_read(tmp_path: Path) -> None:
    config, _ = load_recipe("mmupt_tiny")
    assert run_console._metrics_file(config, {"VERL_FILE_LOGGER_PATH": "/own.jsonl"}) == Path("/own.jsonl")
    root = {"VERL_FILE_LOGGER_ROOT": str(tmp_path)}
    assert run_console._metrics_file(config, root) == tmp_path / "mmupt" / "mmupt_tiny.jsonl"
