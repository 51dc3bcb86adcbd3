"""Reward managers and agent loops are known by the names that veRL, this plugin and a user's code register."""

from pathlib import Path
from typing import Any

import verl.experimental.agent_loop
import verl.experimental.reward_loop.reward_manager.registry as reward_managers
import verl.trainer.ppo.v1
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

import verl_ext.on_policy_loss
import verl_ext.rollout.shared_prompt  # noqa: F401  (registers its agent loop)
from verl_ext.import_check import (
    ADVANTAGE_ESTIMATORS,
    AGENT_LOOPS,
    POLICY_LOSSES,
    REWARD_MANAGERS,
    TRAINER_MODES,
    problems_of_code,
)
from verl_ext.rewards.group_reward import REWARDS

REGISTERS = """\
from verl.experimental.agent_loop.agent_loop import register as register_agent_loop
from verl.experimental.reward_loop.reward_manager import register
from verl.trainer.ppo.core_algos import register_adv_est, register_policy_loss

@register("by_rank")
class ByRank: pass

@register_agent_loop("patient_agent")
class Patient: pass

@register_adv_est("by_median")
def advantages(): pass

@register_policy_loss("clipped_twice")
def loss(): pass

def score(**response):
    return 0.0
"""


def problems(
    manager: str,
    agent_loop: str,
    mode: str = "sync",
    estimator: str = "grpo",
    loss: str = "vanilla",
    **function: Any,
) -> str:
    config = OmegaConf.create(
        {
            "reward": {
                "reward_manager": {"source": "register", "name": manager},
                "custom_reward_function": function or {"path": None},
            },
            "trainer": {"use_v1": True, "v1": {"trainer_mode": mode}},
            "algorithm": {"adv_estimator": estimator},
            "actor_rollout_ref": {
                "rollout": {"agent": {"default_agent_loop": agent_loop}},
                "actor": {"policy_loss": {"loss_mode": loss}},
            },
        }
    )
    return "\n".join(problems_of_code(config))


def test_the_names_that_are_known_without_importing_verl_are_the_registered_ones() -> None:
    assert {*REWARD_MANAGERS, *REWARDS} == set(reward_managers.REWARD_MANAGER)
    assert set(AGENT_LOOPS) == set(_agent_loop_registry)
    assert set(TRAINER_MODES) == set(TRAINER_REGISTRY)
    assert set(ADVANTAGE_ESTIMATORS) == set(ADV_ESTIMATOR_REGISTRY)
    assert set(POLICY_LOSSES) == set(POLICY_LOSS_REGISTRY)
    assert verl.experimental.agent_loop and verl.trainer.ppo.v1


def test_a_name_that_nothing_registers_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    # Each call imports veRL in a new process.
    file = tmp_path / "reward.py"
    file.write_text(REGISTERS)
    message = problems("majority_votes", "patent_agent", "synch", "grop", "clipped", path=str(file), name="score")
    assert message.count("none is registered under this name") == 5
    assert "algorithm.adv_estimator=grop: none is registered under this name; did you mean 'grpo'?" in message
    assert "policy_loss.loss_mode=clipped: none is registered under this name; did you mean 'clipped_twice'?" in message
    assert "trainer.v1.trainer_mode=synch: none is registered under this name; did you mean 'sync'?" in message
    # The names of our own rewards are known, too.
    assert (
        "reward_manager.name=majority_votes: none is registered under this name; did you mean 'majority_vote'?"
        in message
    )
    assert (
        "default_agent_loop=patent_agent: none is registered" in message and "did you mean 'patient_agent'?" in message
    )
    # What the code registers is accepted.
    assert not problems("by_rank", "patient_agent", "sync", "by_median", "clipped_twice", path=str(file), name="score")
