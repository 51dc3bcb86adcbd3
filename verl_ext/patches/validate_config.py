"""Patch `validate_config` and `run_ppo`: check and complete a config before Ray starts.

veRL has no hook with which a plugin could refuse or complete a config. `main_ppo` calls `validate_config` first. The
trainers of `verl.experimental` call it only inside Ray or never, but they all call `run_ppo`, which starts Ray.
Patching `run_ppo` alone is not enough, because `main_ppo` runs as `__main__`. Remove when veRL offers such a hook.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., None], config: Any, *args: Any, **kwargs: Any) -> None:
    """Check and complete the config, then continue as veRL does."""
    # Imported lazily: a process that only imports veRL needs neither answers nor votes.
    from verl_ext.config_checks import check_before_ray
    from verl_ext.config_defaults import complete_config

    # Before the defaults are filled in, so that messages refer to the user's own config.
    check_before_ray(config)
    complete_config(config)
    original(config, *args, **kwargs)
