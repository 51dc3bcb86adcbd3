"""The vote in veRL's own example for a VLM needs two keys; incompatible settings are refused before Ray starts."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import ray
from full_stack import scalars
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from own_configuration import SAMPLER, TWO_KEYS, composed, forced, hardware, run_main_ppo, write_rows
from verl.experimental.fully_async_policy import fully_async_main
from verl.experimental.one_step_off_policy import main_ppo as one_step_off_main

from verl_ext.answers import extract_answer
from verl_ext.config_checks import check_before_ray, check_config
from verl_ext.config_defaults import SAMPLER_DEFAULTS, SAMPLER_KEY, complete_config
from verl_ext.cpu.fork_server import fork_server
from verl_ext.votes import vote


def groups_of(file: Path) -> list[list[dict[str, Any]]]:
    """The rows of a rollout file, grouped by prompt."""
    groups = defaultdict(list)
    for line in file.read_text().splitlines():
        row = json.loads(line)
        groups[row["uid"].split("_")[0]].append(row)
    return list(groups.values())


def test_two_keys_suffice_for_the_vote_and_the_sampler_has_defaults() -> None:
    check_config(composed(*TWO_KEYS))
    config = composed(*TWO_KEYS, *SAMPLER)
    check_config(config)
    complete_config(config)
    kwargs = OmegaConf.to_container(config.trainer.v1.sampler.sampler_kwargs, resolve=True)
    assert isinstance(kwargs, dict) and kwargs.keys() == SAMPLER_DEFAULTS.keys()
    assert (kwargs["n"], kwargs["train_batch_size"], kwargs["reward_manager"]) == (5, 512, "majority_vote")
    assert kwargs["stop_on_collapse"] == {"enable": False} and kwargs["filter_groups"]["enable"] is False


def test_one_key_without_the_other_is_refused() -> None:
    reward, manager = TWO_KEYS
    with pytest.raises(ValueError, match=r"majority_vote needs whole groups: set .*agent_loop_manager_class="):
        check_config(composed(reward))
    for name in ("naive", "dapo"):
        with pytest.raises(ValueError, match=rf"does nothing under reward.reward_manager.name={name}: set "):
            check_config(composed(manager, f"reward.reward_manager.name={name}"))
    # Under any reward manager, it prepares shared prompts and identifies questions for the sampler.
    check_config(composed(manager, "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent"))
    check_config(composed(manager, *SAMPLER))


def test_a_configuration_with_another_reward_manager_is_unchanged() -> None:
    config = composed()
    original = config.copy()
    check_config(config)
    complete_config(config)
    assert config == original


@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [(fully_async_main, "fully_async_ppo_trainer"), (one_step_off_main, "one_step_off_ppo_trainer")],
)
def test_experimental_trainers_refuse_the_vote_before_ray_and_start_without_it(
    trainer: ModuleType, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", start := Mock(side_effect=SystemExit))
    with initialize_config_dir(str(Path(str(trainer.__file__)).parent / "config"), version_base=None):
        # One of the recipes searches for veRL's configuration beside the working directory.
        search_path = "hydra.searchpath=[pkg://verl.trainer.config]"
        vote_config, plain_config = compose(recipe, [search_path, *TWO_KEYS]), compose(recipe, [search_path])
    with pytest.raises(ValueError, match=r"run verl\.trainer\.main_ppo with trainer\.v1\.trainer_mode=separate_async"):
        trainer.main.__wrapped__(vote_config)
    assert not start.called
    with pytest.raises(SystemExit):
        trainer.main.__wrapped__(plain_config)


def test_all_problems_are_in_the_same_message() -> None:
    config = composed(
        TWO_KEYS[0],
        *SAMPLER,
        "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent",
        "actor_rollout_ref.rollout.n=1",
        "+reward.reward_kwargs.vote={tye: all, tie: most, min_share: 2}",
        "+reward.reward_kwargs.answers={extraction: box, rul: 1}",
        "reward.reward_model.enable=True",
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.separate_async.parameter_sync_step=1",
        "algorithm.rollout_correction.rollout_is=token",
        "actor_rollout_ref.rollout.calculate_log_probs=False",
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.hybrid_engine=False",
        "+trainer.v1.sampler.sampler_kwargs={watchdog_second: 5, stop_on_collapse: {patiense: 1}}",
        "data.custom_cls.path=pkg://verl_ext.datasets.unlabelled_dataset",
        "trainer.checkpoint_callback_class=verl_ext.checkpoints.callback.CheckpointMarker",
        "actor_rollout_ref.actor.checkpoint.async_save=True",
        "reward_model.reward_manager=entropy",
    )
    with pytest.raises(ValueError) as refused:
        check_config(config)
    for part in (
        "set reward.reward_manager.name=entropy",
        "default_agent_loop=shared_prompt_agent exists only under",
        "data.custom_cls.name=UnlabelledDataset",
        "set actor_rollout_ref.rollout.calculate_log_probs=True",
        "trainer.v1.separate_async.parameter_sync_step=4",
        "set actor_rollout_ref.rollout.nnodes",
        "checkpoint_engine.backend=nccl, not naive",
        "actor_rollout_ref.model.lora.merge=True",
        "leave it True",
        "sampler_kwargs: there is no key 'watchdog_second'; did you mean 'watchdog_seconds'",
        "sampler_kwargs.stop_on_collapse: there is no key 'patiense'; did you mean 'patience'",
        "actor_rollout_ref.actor.checkpoint.async_save=False",
        "needs whole groups",
        "rollout.n >= 2",
        "there is no key 'tye'; did you mean 'tie'",
        "tie must be one of",
        "min_share must be a number from 0 to 1",
        "there is no key 'rul'; did you mean 'rule'",
        "extraction must be one of",
        "reward.reward_model.enable=False",
    ):
        assert part in str(refused.value), part


def test_invalid_values_of_the_sampler_are_refused() -> None:
    with pytest.raises(ValueError) as refused:
        values = "watchdog_seconds: 1h, poll_interval: -1, votes_per_step: True, stop_on_collapse: null"
        check_config(composed(*SAMPLER, f"+{SAMPLER_KEY}={{{values}, tracked_groups: {{number: 1, evry: 2}}}}"))
    for part in (
        "sampler_kwargs.stop_on_collapse must be a block with enable, not None",
        "sampler_kwargs.watchdog_seconds must be a number of at least 1, not '1h'",
        "sampler_kwargs.poll_interval must be a number of at least 0, not -1",
        "sampler_kwargs.votes_per_step must be null or a whole number of at least 0, not True",
        "sampler_kwargs.tracked_groups: there is no key 'evry'; did you mean 'every'?",
    ):
        assert part in str(refused.value), part


def test_a_dataset_key_that_is_not_read_is_refused() -> None:
    dataset = (
        "data.custom_cls.path=pkg://verl_ext.datasets.unlabelled_dataset",
        "data.custom_cls.name=UnlabelledDataset",
    )
    known = ("+data.min_pixels=3136", "+data.instruction=Think.", "+data.filter_prompts=False")
    check_config(composed(*TWO_KEYS, *dataset, *known))
    with pytest.raises(ValueError, match=r"there is no key data.instuction; did you mean 'instruction'") as refused:
        check_config(composed(*TWO_KEYS, *dataset, "+data.min_pixel=3136", "+data.instuction=Think."))
    assert "there is no key data.min_pixel; did you mean 'min_pixels'" in str(refused.value)
    for key in ("min_pixels", "min_pixel"):
        with pytest.raises(
            ValueError, match=rf"data.{key} is not .*: set data.custom_cls.* key is data.min_pixels, or"
        ):
            check_config(composed(*TWO_KEYS, f"+data.{key}=3136"))
    check_config(composed(*TWO_KEYS, "+data.mine=1", "data.custom_cls.path=null"))
    # Without the plugin, or with the user's own dataset class, such keys are not checked.
    check_config(composed("+data.min_pixels=3136"))
    check_config(composed(*TWO_KEYS, "+data.min_pixels=3136", "data.custom_cls={path: mine.py, name: Rows}"))


def test_the_old_key_of_a_reward_function_is_refused_because_verl_does_not_read_it() -> None:
    old = "custom_reward_function.path=mine.py"
    with pytest.raises(ValueError, match=r"custom_reward_function.path=mine.py: rename .* to reward.custom_reward"):
        check_config(composed(*TWO_KEYS, old))
    check_config(composed(old))


def test_other_old_keys_that_would_change_rewards_are_refused_together() -> None:
    old = (
        "reward_model.reward_manager=dapo",
        "+reward_model.reward_kwargs.overlong_buffer_cfg.enable=True",
        "+reward_model.reward_kwargs.max_resp_len=2048",
    )
    with pytest.raises(ValueError) as refused:
        check_config(composed(*TWO_KEYS, *old, "reward_model.enable=True"))
    assert str(refused.value) == (
        "veRL does not read reward_model.reward_manager=dapo, reward_model.enable=True, "
        "reward_model.reward_kwargs.overlong_buffer_cfg.enable=True: remove them"
    )
    check_config(composed(*old))
    check_config(composed(*TWO_KEYS, "reward_model.reward_manager=naive", "reward_model.enable=False"))


CODE_PROBLEMS = (
    "3 settings must change",
    "score.py: importing it raises ModuleNotFoundError: No module named 'no_such_library'",
    "trainer.checkpoint_callback_class=no_such.Callback: there is no such module",
    "=single_turn_agnt: none is registered under this name; did you mean 'single_turn_agent'?",
)


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[str, ...]:
    """Overrides that name code which does not exist or cannot be imported."""
    (tmp_path / "score.py").write_text("import no_such_library\ndef compute_score(**response): ...\n")
    return (
        f"reward.custom_reward_function.path={tmp_path / 'score.py'}",
        "trainer.checkpoint_callback_class=no_such.Callback",
        "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agnt",
    )


def test_verls_command_fails_before_ray_if_named_code_does_not_exist(faulty: tuple[str, ...], tmp_path: Path) -> None:
    run = run_main_ppo(tmp_path, *faulty)
    assert run.returncode == 1 and "ray init kwargs" not in run.stdout
    for part in (f"ValueError: {CODE_PROBLEMS[0]}", *CODE_PROBLEMS[1:]):
        assert part in run.stderr, part


def test_missing_code_is_refused_with_the_vote_too(faulty: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_rows(file, "train", 4)
    keys = forced({"data.train_files": str(file), "data.val_files": str(file)})
    with pytest.raises(ValueError) as refused:
        check_before_ray(composed(*TWO_KEYS, *keys, *faulty))
    for part in CODE_PROBLEMS:
        assert part in str(refused.value), part


@pytest.fixture
def forked_workers() -> Iterator[list[str]]:
    """Overrides that halve the start-up time of a run without an effect on training.

    A fork server serves a single Ray cluster, so each test needs a new server.
    """
    block = "ray_kwargs.ray_init.runtime_env"
    variables = {name.removeprefix(f"{block}.env_vars."): value for name, value in hardware().items() if block in name}
    del variables[f"{block}.worker_process_setup_hook"]
    with fork_server(variables) as runtime_env:
        program = {f"{block}.py_executable": runtime_env["py_executable"]}
        yield forced(program | {f"{block}.env_vars.{name}": value for name, value in runtime_env["env_vars"].items()})


@pytest.mark.full_stack
def test_verls_example_trains_on_the_vote_with_two_keys(tmp_path: Path, forked_workers: list[str]) -> None:
    run = run_main_ppo(tmp_path, *TWO_KEYS, *forked_workers)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    for step in (1, 2):
        groups = groups_of(tmp_path / "rollouts" / f"{step}.jsonl")
        assert [len(group) for group in groups] == [5] * 4
        for group in groups:
            # The rows have ground truth, but the rewards come from the vote.
            assert all(row["gts"].isdigit() for row in group)
            result = vote([extract_answer(row["output"]) for row in group])
            assert [row["score"] for row in group] == list(result.rewards)
    assert len((tmp_path / "validation" / "2.jsonl").read_text().splitlines()) == 6
    assert "vote/majority_ratio" not in scalars(tmp_path)


@pytest.mark.full_stack
def test_sampler_shared_prompts_and_checkpoint_marker_work_on_verls_plain_rows(
    tmp_path: Path, forked_workers: list[str]
) -> None:
    shared = "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent"
    callback = "trainer.checkpoint_callback_class=verl_ext.checkpoints.callback.CheckpointMarker"
    run = run_main_ppo(tmp_path, *TWO_KEYS, *SAMPLER, shared, callback, *forked_workers)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    series = scalars(tmp_path)
    assert set(series["vote/majority_ratio"]) == set(series["vote/reward_accuracy"]) == {1, 2}
    history = [json.loads(line) for line in (tmp_path / "checkpoints" / "history.jsonl").read_text().splitlines()]
    validations = [line["right"] for line in history if "right" in line]
    # The same six questions before and after training.
    assert len(validations) == 2 and len(validations[0]) == 6 and validations[0].keys() == validations[1].keys()
