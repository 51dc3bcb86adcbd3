"""Patch `transfer_queue.kv_clear`: remove the shared image features of a prompt with its last entry.

veRL removes the rows of a step after the update, and the rows of groups that it filters, replaces or discards. It
always calls `kv_clear` with keys that begin with the uid of the prompt, and offers no hook. Remove when veRL stores
features once per group or tells a plugin which rows it removes.
"""

from collections.abc import Callable


def patched(original: Callable[..., None], keys: list[str] | str, partition_id: str) -> None:
    """Remove the entries, then the features without any entry left."""
    # Imported lazily: loads torch, which a process that imports only the transfer queue does not need.
    from verl_ext.rollout.shared_features import clear_unused

    original(keys, partition_id)
    clear_unused([keys] if isinstance(keys, str) else list(keys), partition_id)
