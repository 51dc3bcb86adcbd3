"""Patch `async_kv_batch_meta2batch_meta` of `verl.utils.transferqueue_utils`: workers fetch the columns that they read.

For each pass of the actor, the reference and the critic, veRL fetches all columns of all responses, makes an object of
each value that is no tensor (the text of the prompt, settings of the vote, ...) and copies it into each micro-batch. Of
these columns the model reads `multi_modal_inputs` alone. Can go when veRL names the columns that a pass needs.
"""

from types import ModuleType
from typing import Any

import wrapt

READ = ("multi_modal_inputs",)


def apply(module: ModuleType) -> None:
    """Wrap the function of `module` (`verl.utils.transferqueue_utils`), by which a worker looks up a batch."""

    async def look_up(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        batch = await wrapped(*args, **kwargs)
        schemas = batch.field_schema.items()
        return batch.select_fields([name for name, schema in schemas if name in READ or not schema["is_non_tensor"]])

    wrapt.wrap_function_wrapper(module, "async_kv_batch_meta2batch_meta", look_up)
