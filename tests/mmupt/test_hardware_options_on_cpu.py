"""Hardware and asynchronous options work with any recipe, and GPUs are counted before a run starts."""

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
def test_a_hardware_option_works_with_any_recipe(
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
def test_an_asynchronous_option_passes_verls_and_our_checks(recipe: str, option: str, tmp_path: Path) -> None:
    config, choices = load_recipe(recipe, [f"+async={option}"])
    assert choices["async"] == option
    validate(config, tmp_path)
    assert list(problems_of_settings(config, {})) == list(problems_of_settings(shipped(recipe), {}))


@pytest.mark.parametrize(
    ("overrides", "total", "parts"),
    [
        (["method=self_judge", "reward.reward_model.n_gpus_per_node=2"], 10, "8 to train, 2 to judge"),
        (["+async=separate", "actor_rollout_ref.rollout.n_gpus_per_node=4"], 12, "8 to train, 4 to generate"),
    ],
)
def test_gpus_of_a_separate_judge_and_of_separate_generation_are_counted(
    overrides: list[str], total: int, parts: str
) -> None:
    config, choices = load_recipe("mmupt_mathvista", overrides)
    (problem,) = _problems_of_hardware(config, choices, gpus=8)
    assert f"needs {total} GPUs per machine ({parts}), but this machine has 8" in problem
    assert not list(_problems_of_hardware(config, choices, gpus=total))
    assert devices(config) == total


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
def test_invalid_asynchronous_settings_are_refused_when_the_recipe_is_composed(
    overrides: list[str], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe("mmupt_tiny", overrides)


def test_a_run_that_joins_a_cluster_sets_no_number_of_cpus_or_gpus(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cpus_and_gpus() -> list[int | None]:
        ray_init = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init
        return [ray_init.num_cpus, ray_init.num_gpus]

    assert cpus_and_gpus() == [16, 16]
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert cpus_and_gpus() == [None, None]
