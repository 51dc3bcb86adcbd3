"""Which modules LoRA adapts, and what vLLM serves of them."""

import re
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from mmupt.models import shape_of

# The name of a module in the vision tower, the same in all families.
OF_THE_TOWER = "model.visual.blocks.0.attn.qkv"
TOWER_KEY = "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_tower_connector_lora"


def lora_rank(config: DictConfig) -> int:
    """The rank of the adapters of a recipe, 0 if all weights are trained."""
    model = config.actor_rollout_ref.model
    return int(OmegaConf.select(model, "lora.rank", default=0) or model.lora_rank)


def excludes_vision(pattern: object) -> bool:
    """Whether `model.exclude_modules`, a regular expression over whole names of modules, keeps LoRA off the tower."""
    return isinstance(pattern, str) and re.fullmatch(pattern, OF_THE_TOWER) is not None


def problems_of_adapters(config: DictConfig) -> Iterator[str]:
    """Yield why vLLM would generate without some of the adapters that are trained (vllm/lora/model_manager.py)."""
    model = config.actor_rollout_ref.model
    shape = shape_of(str(model.path))
    if not lora_rank(config) or model.lora.get("merge") or shape is None or shape.vision is None:
        return
    if not excludes_vision(model.exclude_modules) and not OmegaConf.select(config, TOWER_KEY):
        yield (
            "adapters of the vision tower would be trained, and vLLM would leave them out: set "
            "actor_rollout_ref.model.exclude_modules='.*visual.*', or merge adapters before they are sent "
            f"(actor_rollout_ref.model.lora.merge=True), or have vLLM serve them, an experiment (+{TOWER_KEY}=True)"
        )
