"""Patch `verl.utils.transferqueue_utils.async_kv_batch_meta2batch_meta`: workers fetch only the columns that they read.

For each pass of the actor, the reference and the critic, veRL fetches all columns of all responses, wraps each
non-tensor value (prompt text, vote settings, ...) and copies it into each micro-batch. The only non-tensor column that
a model reads is `multi_modal_inputs`. Remove when veRL names the columns that a pass needs.
"""

from collections.abc import Awaitable, Callable
from typing import Any

READ = ("multi_modal_inputs",)


async def patched(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Look up only the tensor columns of a batch and those in `READ`."""
    batch = await original(*args, **kwargs)
    schemas = batch.field_schema.items()
    return batch.select_fields([name for name, schema in schemas if name in READ or not schema["is_non_tensor"]])
