"""Hardware and asynchronous options go with any recipe, and GPUs are counted before a run asks for them."""

from pathlib import Path

import pytest
from composed_recipes import HARDWARE, shipped, validate

from mmupt.compose import RecipeError, load_recipe
from mmupt.runtime.preflight import problems_of_settings
from mmupt.training import recipe_run
from mmupt.training.recipe_run import _problems_of_hardware
from mmupt.training.run_cost import devices


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("recipe", [("mmupt_smoke",), ("mmupt_mathvista", "model=qwen2_5_vl_3b", "method=supervised")])
def test_a_hardware_option_goes_with_any_recipe(
    recipe: tuple[str, ...], hardware: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    config, choices = load_recipe(recipe[0], [*recipe[1:], f"hardware={hardware}"])
    assert choices["hardware"] == hardware
    validate(config, tmp_path)
    assert not list(_problems_of_hardware(config, choices, gpus=0))
    assert (config.trainer.device == "cpu") == (config.mmupt.gpu_memory_gib is None)


@pytest.mark.parametrize(
    ("recipe", "option"),
    [("mmupt_tiny", "colocate"), ("mmupt_tiny", "separate_cpu"), ("mmupt_mathvista", "separate")],
)
def test_an_asynchronous_option_goes_with_a_recipe_and_verls_settings(recipe: str, option: str, tmp_path: Path) -> None:
    config, choices = load_recipe(recipe, [f"+async={option}"])
    assert choices["async"] == option
    validate(config, tmp_path)
    assert list(problems_of_settings(config, {})) == list(problems_of_settings(shipped(recipe), {}))


def test_the_gpus_that_only_judge_are_counted() -> None:
    config, choices = load_recipe("mmupt_mathvista", ["method=self_judge", "reward.reward_model.n_gpus_per_node=2"])
    (problem,) = _problems_of_hardware(config, choices, gpus=8)
    assert "needs 10 GPUs per machine (8 to train, 2 to judge), but this machine has 8" in problem
    assert not list(_problems_of_hardware(config, choices, gpus=10))
    assert devices(config) == 10


def test_the_gpus_that_only_generate_are_counted() -> None:
    config, choices = load_recipe("mmupt_mathvista", ["+async=separate", "actor_rollout_ref.rollout.n_gpus_per_node=4"])
    (problem,) = _problems_of_hardware(config, choices, gpus=8)
    assert "needs 12 GPUs per machine (8 to train, 4 to generate), but this machine has 8" in problem
    assert not list(_problems_of_hardware(config, choices, gpus=12))
    assert devices(config) == 12


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["+async=separate"], "backend=nccl needs GPUs: on the CPU, use \\+async=separate_cpu"),
        (
            ["+async=separate_cpu", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
            "set trainer.v1.separate_async.parameter_sync_step=4",
        ),
    ],
)
def test_what_an_asynchronous_trainer_would_refuse_late_is_refused_at_once(overrides: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe("mmupt_tiny", overrides)


def test_what_joins_a_cluster_leaves_cpus_and_gpus_to_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked_for() -> list[int | None]:
        ray_init = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init
        return [ray_init.num_cpus, ray_init.num_gpus]

    assert asked_for() == [16, 16]
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert asked_for() == [None, None]
