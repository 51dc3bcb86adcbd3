"""Patch `validate_config` and `run_ppo`: the plugin checks and completes a config before Ray starts.

veRL has no hook by which a plugin could refuse or complete a config. `main_ppo` validates it first of all. The trainers
of `verl.experimental` do so only inside Ray, or never, but all call `run_ppo`, which starts Ray and which cannot be
patched in `main_ppo` itself, as that runs under the name `__main__`. Remove when veRL offers such a hook.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., None], config: Any, *args: Any, **kwargs: Any) -> None:
    """Check, complete, then go on as veRL does."""
    # Imported lazily: a process that only imports veRL needs neither answers nor votes.
    from verl_ext.config_checks import check_before_ray
    from verl_ext.config_defaults import complete_config

    # Before the defaults, so that the message speaks of what the user wrote.
    check_before_ray(config)
    complete_config(config)
    original(config, *args, **kwargs)
