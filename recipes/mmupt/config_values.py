"""Finds values of a composed recipe that no run can start with, such as text for a number or zero responses. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from verl_ext.unknown_keys import is_number, is_whole

# Key -> whether a value is allowed, and a description of the allowed values.
ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        (
            "actor_rollout_ref.actor.ppo_mini_batch_size",
            "actor_rollout_ref.rollout.n",
            "data.max_prompt_length",
            "data.max_response_length",
            "data.train_batch_size",
            "mmupt.evaluation_samples",
            "trainer.nnodes",
            "trainer.total_epochs",
        ),
        (lambda value: is_whole(value, 1), "a whole number of at least 1"),
    ),
    "actor_rollout_ref.actor.optim.lr": (lambda value: is_number(value, 0), "a number of at least 0"),
    "actor_rollout_ref.model.lora_rank": (lambda value: is_whole(value, 0), "a whole number of at least 0"),
    "actor_rollout_ref.rollout.gpu_memory_utilization": (lambda value: is_number(value, 0, 1), "a number from 0 to 1"),
    "actor_rollout_ref.rollout.temperature": (lambda value: is_number(value, 0) and value > 0, "a number above 0"),
    "actor_rollout_ref.rollout.top_p": (lambda value: is_number(value, 0, 1), "a number from 0 to 1"),
    "mmupt.seed": (lambda value: is_whole(value, 0), "a whole number of at least 0"),
    "mmupt.run_folder": (lambda value: isinstance(value, str), "the path of a folder"),
    "trainer.total_training_steps": (
        lambda value: value is None or is_whole(value, 0),
        "null or a whole number of at least 0",
    ),
}


def problems_of_values(config: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a message for each key whose value is not allowed.

    Args:
        config: the recipe, with its interpolations resolved.
        base: the config that the recipe builds on. Where it has a number, a bool or a block, the recipe must, too.
        prefix: prepended to every key, including its dot.
    """
    for name, default in base.items():
        key, value = f"{prefix}{name}", config.get(name)
        is_allowed, values = ALLOWED.get(key, (None, ""))
        if is_allowed is not None:
            if not is_allowed(value):
                yield f"{key} must be {values}, not {value!r}"
        elif isinstance(default, dict) and isinstance(value, dict):
            yield from problems_of_values(value, default, f"{key}.")
        elif isinstance(default, dict) and default and value is not None:
            yield f"{key} must be a block of keys, not {value!r}"
        elif isinstance(default, bool | int | float) and isinstance(value, str | list | dict):
            yield f"{key} must be {'True or False' if isinstance(default, bool) else 'a number'}, not {value!r}"
