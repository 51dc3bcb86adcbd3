"""Patch `verl.utils.config.validate_config`: the plugin checks and completes a config before Ray starts.

veRL has no hook by which a plugin could refuse or complete a config. Remove when it offers one.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., None], config: Any, *args: Any, **kwargs: Any) -> None:
    """Check, complete, then validate as veRL does."""
    # Imported lazily: a process that only imports veRL needs neither answers nor votes.
    from verl_ext.config_checks import check_before_ray
    from verl_ext.config_defaults import complete_config

    # Before the defaults, so that the message speaks of what the user wrote.
    check_before_ray(config)
    complete_config(config)
    original(config, *args, **kwargs)
