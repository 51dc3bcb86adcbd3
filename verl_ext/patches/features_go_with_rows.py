"""Patch `transfer_queue.kv_clear`: the shared image features of a prompt are removed with its last entry.

veRL removes the rows of a step after the update, and those of groups that it filters, replaces or discards, always by
`kv_clear` and under keys that begin with the uid of their prompt. It has no hook there. Remove when veRL stores
features once per group, or tells a plugin which rows it removes.
"""

from collections.abc import Callable


def patched(original: Callable[..., None], keys: list[str] | str, partition_id: str) -> None:
    """Remove the entries, then the features that no entry needs any more."""
    # Imported lazily: loads torch, which a process that only imports the transfer queue does not need.
    from verl_ext.rollout.shared_features import clear_unused

    original(keys, partition_id)
    clear_unused([keys] if isinstance(keys, str) else list(keys), partition_id)
