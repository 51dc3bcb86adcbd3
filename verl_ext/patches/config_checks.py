"""Patch `verl.utils.config.validate_config`: the plugin's own checks run with veRL's, before Ray starts.

veRL has no hook by which a plugin could refuse a configuration. Can go when it offers one.
"""

from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap `validate_config` of `module` (`verl.utils.config`)."""

    def validate(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        # The checks know answers and votes, which a process that only imports veRL has no use for.
        from verl_ext.checks import check_config

        check_config(kwargs["config"] if "config" in kwargs else args[0])
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "validate_config", validate)
