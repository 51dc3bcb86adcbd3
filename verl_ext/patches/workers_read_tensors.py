"""Patch `verl.utils.transferqueue_utils.async_kv_batch_meta2batch_meta`: workers fetch only the columns that they read.

For each pass of the actor, the reference and the critic, veRL fetches all columns of all responses, makes an object of
each non-tensor value (prompt text, vote settings, ...) and copies it into each micro-batch. Of these columns the model
reads `multi_modal_inputs` alone. Remove when veRL names the columns that a pass needs.
"""

from collections.abc import Awaitable, Callable
from typing import Any

READ = ("multi_modal_inputs",)


async def patched(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Look up the tensors of a batch and the columns in `READ`."""
    batch = await original(*args, **kwargs)
    schemas = batch.field_schema.items()
    return batch.select_fields([name for name, schema in schemas if name in READ or not schema["is_non_tensor"]])
