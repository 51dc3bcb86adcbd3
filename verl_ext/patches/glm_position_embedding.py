"""Patch `verl.utils.fsdp_utils._select_fsdp2_wrap_targets`: GLM-4.1V's vision tower can read its position embedding.

FSDP2 gathers the weights of a module when its `forward` is called. veRL shards each embedding as a separate module, but
GLM-4.1V's tower reads the weight of its position embedding without a call and gets a shard, which `grid_sample` refuses
("got mixed torch.Tensor and DTensor"). If the embedding is sharded with the surrounding module, it is gathered in time.
SkyRL has the same issue: https://github.com/NovaSky-AI/SkyRL/issues/2087. Remove when veRL leaves such embeddings to
the surrounding module, or transformers calls this one.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., list[Any]], model: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """Select the same modules as veRL except for these embeddings."""
    embeddings = {
        id(module.position_embedding)
        for module in model.modules()
        if type(module).__name__ in ("Glm4vVisionEmbeddings", "Glm4vMoeVisionEmbeddings")
    }
    return [module for module in original(model, *args, **kwargs) if id(module) not in embeddings]
