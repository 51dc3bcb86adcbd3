"""Patch `transfer_queue.kv_clear`: the shared features of a prompt's images go when its last entry goes.

veRL removes the rows of a step after the update, and those of groups that it filters, replaces or discards as it does
so, all by `kv_clear` and under keys that begin with the uid of their prompt. It has no hook there. Can go when veRL
stores features once per group, or tells a plugin which rows it removes.
"""

from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap `kv_clear` of `module` (`transfer_queue`)."""

    def clear(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        # Imports torch, which a process that only imports the transfer queue may do without.
        from verl_ext.rollout.shared_features import clear_unused

        def removed(keys: list[str] | str, partition_id: str) -> tuple[list[str], str]:
            return [keys] if isinstance(keys, str) else list(keys), partition_id

        wrapped(*args, **kwargs)
        clear_unused(*removed(*args, **kwargs))

    wrapt.wrap_function_wrapper(module, "kv_clear", clear)
