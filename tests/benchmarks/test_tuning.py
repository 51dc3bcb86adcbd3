"""Trials of all methods vary the same settings, whatever the method's own values are."""

from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from benchmarks import tuning
from mmupt.compose import load_recipe


@cache
def config_of_trial(method: str, name: str) -> DictConfig:
    return load_recipe("mmupt_tiny", [f"method={method}", *tuning.trials(method)[name]])[0]


def of_trial(method: str, name: str, key: str) -> float:
    return float(OmegaConf.select(config_of_trial(method, name), key))


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("mmupt", "actor_rollout_ref.actor.optim.lr"),
        # These methods set their own learning rates.
        ("lmsi", "mmupt.baseline.sft.learning_rate"),
        ("stic", "mmupt.baseline.dpo.learning_rate"),
        ("stic", "mmupt.baseline.sft.learning_rate"),
    ],
)
def test_every_method_is_tried_with_the_same_learning_rates(method: str, key: str) -> None:
    rates = {name: of_trial(method, name, key) for name in ("lr_3e-05", "lr_0.0001", "lr_0.0003")}
    assert list(rates.values()) == list(tuning.LEARNING_RATES)


def test_a_method_is_tried_with_one_pass_and_with_several() -> None:
    method, key = "rejection_sft", "mmupt.baseline.sft.epochs"
    assert OmegaConf.select(load_recipe("mmupt_tiny", [f"method={method}"])[0], key) == 3
    passes = {name: of_trial(method, name, key) for name in tuning.trials(method)}
    assert passes == {"lr_3e-05": 1, "lr_0.0001": 1, "lr_0.0003": 1, "lr_0.0001_passes_3": 3}
    assert of_trial(method, "lr_0.0001_passes_3", "mmupt.baseline.sft.learning_rate") == 1e-4


def test_grpo_has_no_passes_to_try() -> None:
    assert set(tuning.trials("soft")) == {"lr_3e-05", "lr_0.0001", "lr_0.0003"}
