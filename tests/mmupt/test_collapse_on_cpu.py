"""The launcher stops a collapsed run, exports its best policy, states why, and does not continue its training."""

import json
import re
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mmupt.cli import main
from mmupt.compose import RecipeError, load_recipe
from mmupt.training import collapse_record, recipe_run
from verl_ext.checkpoints import checkpoint_of, mark_whole
from verl_ext.collapse import CollapseAlarm, CollapseRule, History, StoppedOnCollapse, read_alarm

RIGHT = {0: 40, 5: 80, 10: 50, 15: 20, 20: 10}


def validate(alarm: CollapseAlarm, step: int) -> None:
    alarm.validated(step, {f"q{number}": [float(number < RIGHT[step])] for number in range(100)})


class FakeTrainer:
    """Trains until the alarm stops it or `total_training_steps`, with a checkpoint per step, the last two kept."""

    def __init__(self) -> None:
        self.trained: list[int] = []

    def __call__(self, config: DictConfig) -> None:
        alarm = read_alarm(config.trainer.v1.sampler.sampler_kwargs)
        checkpoints = Path(config.trainer.default_local_dir)
        first = recipe_run.last_whole_step(checkpoints) + 1
        validate(alarm, 0) if first == 1 else None
        for step in range(first, config.trainer.total_training_steps + 1):
            alarm.before_training(step)
            alarm.trained(step, 0.3 + 0.03 * step)
            self.trained.append(step)
            (checkpoint_of(checkpoints, step) / "actor").mkdir(parents=True)
            mark_whole(checkpoint_of(checkpoints, step))
            shutil.rmtree(checkpoint_of(checkpoints, step - 2), ignore_errors=True)
            if step in RIGHT:
                validate(alarm, step)


@pytest.fixture
def trainer(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTrainer:
    """A fast trainer in a separate working folder."""
    fake = FakeTrainer()
    monkeypatch.setattr(recipe_run, "run_trainer", fake)
    monkeypatch.setattr(recipe_run, "merge", lambda checkpoint, target, mark: Path(f"{checkpoint} as {mark}"))
    return fake


def test_a_run_with_verls_own_replay_buffer_trains_without_an_alarm(elsewhere: Path) -> None:
    sampler = "trainer.v1.sampler.custom_sampler"
    config, _ = load_recipe("mmupt_tiny", [f"{sampler}.path=null", f"{sampler}.name=null", "mmupt.run_folder=run"])
    assert not collapse_record.alarm_of(config).is_on and collapse_record.alarm_of(config).find_collapse() is None
    assert "only VoteReplayBuffer" in str(collapse_record.why_unwatched(config))
    config.mmupt.stop_on_collapse.enable = False
    assert collapse_record.why_unwatched(config) is None


def start(*overrides: str) -> tuple[DictConfig, str]:
    """Run the stages of the launcher from training to export; return the configuration and the exported policy."""
    config = recipe_run.prepare_run(
        "mmupt_tiny", ["mmupt.run_folder=run", "mmupt.stop_on_collapse.patience=2", *overrides]
    )
    model = recipe_run.export(config, recipe_run.train_until_done(config))
    return config, str(model.relative_to(config.trainer.default_local_dir)) if " as " in str(model) else str(model)


def test_a_collapse_ends_the_run_with_its_best_policy_and_a_message(
    trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = start()
    assert trainer.trained == list(range(1, 16)) and model == "best/global_step_5/actor as 5"
    message = json.loads(Path("run/collapse.json").read_text())["message"]
    assert message.startswith(
        "The run collapsed and was stopped after step 15: accuracy on 100 validation questions fell"
    )
    assert "The kept policy is that of step 5. Remedies to try: " in message
    assert message in capsys.readouterr().out
    content = json.loads(Path("run/collapse.json").read_text())
    assert (content["step"], content["kept_step"], content["measure"]) == (15, 5, "accuracy")


def test_every_remedy_in_the_message_is_an_existing_option() -> None:
    remedies = re.findall(r"[a-z_]+(?:\.[a-z_]+)*=[a-z_0-9.]*[a-z_0-9]|[a-z_]+(?:\.[a-z_]+)+", collapse_record.REMEDIES)
    assert len(remedies) == 5
    for option in remedies:
        if "=" in option:
            load_recipe("mmupt_tiny", [option])
        else:
            assert OmegaConf.select(load_recipe("mmupt_tiny", [])[0], option) is not None


def test_the_same_command_repeats_the_message_and_trains_nothing(
    trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    start()
    first = capsys.readouterr().out
    assert start()[1] == "best/global_step_5/actor as 5" and len(trainer.trained) == 15
    assert first.splitlines()[-1] in capsys.readouterr().out


def test_a_stopped_run_continues_without_the_alarm_and_its_last_policy_is_exported(trainer: FakeTrainer) -> None:
    start()
    _, model = start("mmupt.stop_on_collapse.enable=false")
    assert trainer.trained == list(range(1, 21)) and model == "global_step_20/actor as 20"
    assert not Path("run/collapse.json").exists()


def test_a_collapse_at_the_last_validation_counts_too(trainer: FakeTrainer) -> None:
    _, model = start("trainer.total_training_steps=15")
    assert len(trainer.trained) == 15 and model == "best/global_step_5/actor as 5"


def test_controls_are_trained_to_the_end(trainer: FakeTrainer) -> None:
    assert start("method=random")[1] == "global_step_20/actor as 20"
    assert start("method=supervised", "mmupt.run_folder=other")[1] == "global_step_20/actor as 20"


def test_the_base_model_is_the_result_if_no_step_was_better(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RIGHT, 0, 90)
    config, model = start()
    assert model == config.actor_rollout_ref.model.path
    assert "is the model before training." in json.loads(Path("run/collapse.json").read_text())["message"]


def test_an_invalid_rule_is_refused_when_the_recipe_is_composed() -> None:
    with pytest.raises(
        RecipeError, match=r"mmupt\.stop_on_collapse: patience must be a whole number of at least 1, not 0"
    ):
        load_recipe("mmupt_tiny", ["mmupt.stop_on_collapse.patience=0"])


def test_a_crash_of_the_trainer_is_not_a_collapse(trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(config: DictConfig) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(recipe_run, "run_trainer", crash)
    with pytest.raises(RuntimeError, match="out of memory"):
        start()


def test_a_collapse_wrapped_by_ray_is_recognized() -> None:
    from ray.exceptions import RayTaskError

    cause = StoppedOnCollapse("fell")
    with pytest.raises(StoppedOnCollapse, match="fell"):
        raise RayTaskError("run", "traceback: fell", cause).as_instanceof_cause()


def test_a_run_without_validation_warns_that_no_collapse_can_be_noticed(
    trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    start("trainer.test_freq=-1", "mmupt.stop_on_collapse.enable=false")
    start("method=careful", "trainer.test_freq=-1")
    assert "no collapse can be noticed" not in capsys.readouterr().out
    start("trainer.test_freq=-1", "mmupt.run_folder=other")
    assert capsys.readouterr().out.count("(trainer.test_freq=-1) no collapse can be noticed") == 1


def test_a_replay_shows_every_validation_and_where_the_alarm_would_have_stopped(trainer: FakeTrainer) -> None:
    start("mmupt.stop_on_collapse.enable=false")
    lines, collapses = zip(
        *collapse_record.replay(History(Path("run/history.jsonl")), CollapseRule(patience=2)), strict=True
    )
    assert [collapse is not None for collapse in collapses] == [False, False, False, True, False]
    assert lines[0] == "step 0: majority ratio none yet, accuracy 40.0 ± 4.9 %"
    assert lines[1] == "step 5: majority ratio 0.390, accuracy 80.0 ± 4.0 %"
    assert lines[2] == (
        "step 10: majority ratio 0.540, accuracy 50.0 ± 5.0 % (30.0 ± 4.6 points below step 5, more than 14.0 count)"
    )


def test_the_command_replays_a_run_with_another_rule(trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = start("mmupt.stop_on_collapse.enable=false")
    OmegaConf.save(config, "run/config.yaml")
    capsys.readouterr()
    assert main(["collapse", "run", "--patience", "2"]) == 0
    assert "The alarm stops the run here: " in capsys.readouterr().out
    assert main(["collapse", "run", "--patience", "5"]) == 0
    assert capsys.readouterr().out.endswith("The alarm does not stop the run.\n")
    with pytest.raises(SystemExit, match="error: patience must be a whole number of at least 1, not 0"):
        main(["collapse", "run", "--patience", "0"])
