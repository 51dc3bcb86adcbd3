"""The launcher stops a run that has collapsed, leaves its best policy, says why, and does not train it any further."""

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
    """Trains up to `total_training_steps`, as far as the alarm lets it: a checkpoint a step, of which two are kept."""

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
    """A trainer that is quick, in a working folder to itself."""
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
    """The stages of the launcher from training to export; returns which policy it exports."""
    config = recipe_run.prepare_run(
        "mmupt_tiny", ["mmupt.run_folder=run", "mmupt.stop_on_collapse.patience=2", *overrides]
    )
    model = recipe_run.export(config, recipe_run.train_until_done(config))
    return config, str(model.relative_to(config.trainer.default_local_dir)) if " as " in str(model) else str(model)


def test_a_collapse_ends_the_run_with_its_best_policy_and_says_why(
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


def test_every_remedy_that_is_offered_is_an_option_that_exists() -> None:
    named = re.findall(r"[a-z_]+(?:\.[a-z_]+)*=[a-z_0-9.]*[a-z_0-9]|[a-z_]+(?:\.[a-z_]+)+", collapse_record.REMEDIES)
    assert len(named) == 5
    for option in named:
        if "=" in option:
            load_recipe("mmupt_tiny", [option])
        else:
            assert OmegaConf.select(load_recipe("mmupt_tiny", [])[0], option) is not None


def test_the_same_command_afterwards_says_it_again_and_trains_nothing(
    trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    start()
    first = capsys.readouterr().out
    assert start()[1] == "best/global_step_5/actor as 5" and len(trainer.trained) == 15
    assert first.splitlines()[-1] in capsys.readouterr().out


def test_without_the_alarm_the_stopped_run_goes_on_and_the_last_policy_is_exported(trainer: FakeTrainer) -> None:
    start()
    _, model = start("mmupt.stop_on_collapse.enable=false")
    assert trainer.trained == list(range(1, 21)) and model == "global_step_20/actor as 20"
    assert not Path("run/collapse.json").exists()


def test_a_collapse_that_the_last_validation_shows_is_one_too(trainer: FakeTrainer) -> None:
    _, model = start("trainer.total_training_steps=15")
    assert len(trainer.trained) == 15 and model == "best/global_step_5/actor as 5"


def test_controls_are_trained_to_the_end(trainer: FakeTrainer) -> None:
    assert start("method=random")[1] == "global_step_20/actor as 20"
    assert start("method=supervised", "mmupt.run_folder=other")[1] == "global_step_20/actor as 20"


def test_where_no_step_was_better_than_the_start_the_model_before_training_is_left(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RIGHT, 0, 90)
    config, model = start()
    assert model == config.actor_rollout_ref.model.path
    assert "is the model before training." in json.loads(Path("run/collapse.json").read_text())["message"]


def test_a_rule_that_cannot_be_is_refused_with_the_recipe() -> None:
    with pytest.raises(
        RecipeError, match=r"mmupt\.stop_on_collapse: patience must be a whole number of at least 1, not 0"
    ):
        load_recipe("mmupt_tiny", ["mmupt.stop_on_collapse.patience=0"])


def test_a_crash_of_the_trainer_is_no_collapse(trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(config: DictConfig) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(recipe_run, "run_trainer", crash)
    with pytest.raises(RuntimeError, match="out of memory"):
        start()


def test_the_launcher_recognises_a_collapse_that_ray_has_wrapped() -> None:
    from ray.exceptions import RayTaskError

    cause = StoppedOnCollapse("fell")
    with pytest.raises(StoppedOnCollapse, match="fell"):
        raise RayTaskError("run", "traceback: fell", cause).as_instanceof_cause()


def test_a_run_without_validation_is_told_that_nothing_can_be_noticed(
    trainer: FakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    start("trainer.test_freq=-1", "mmupt.stop_on_collapse.enable=false")
    start("method=careful", "trainer.test_freq=-1")
    assert "no collapse can be noticed" not in capsys.readouterr().out
    start("trainer.test_freq=-1", "mmupt.run_folder=other")
    assert capsys.readouterr().out.count("(trainer.test_freq=-1) no collapse can be noticed") == 1


def test_a_replay_shows_every_validation_and_where_the_alarm_would_have_stopped(trainer: FakeTrainer) -> None:
    start("mmupt.stop_on_collapse.enable=false")
    lines, found = zip(
        *collapse_record.replay(History(Path("run/history.jsonl")), CollapseRule(patience=2)), strict=True
    )
    assert [one is not None for one in found] == [False, False, False, True, False]
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
