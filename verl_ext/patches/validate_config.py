"""Patch `verl.utils.config.validate_config`: the plugin's checks and defaults come before veRL's checks and before Ray.

veRL has no hook by which a plugin could complete or refuse a configuration. Can go when it offers one.
"""

from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap `validate_config` of `module` (`verl.utils.config`)."""

    def validate(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        # The checks know answers and votes, which a process that only imports veRL has no use for.
        from verl_ext.config_checks import check_before_ray
        from verl_ext.config_defaults import complete_config

        config = kwargs["config"] if "config" in kwargs else args[0]
        # Before the defaults, so that the message speaks of what was written.
        check_before_ray(config)
        complete_config(config)
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "validate_config", validate)
