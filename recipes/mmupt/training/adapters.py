"""Which modules LoRA adapts, and what vLLM serves of them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.models import MODEL_FAMILIES, config_of

# Names in transformers, the same in all families: a module of the vision tower, a layer of the language model, and the
# gate of its shared expert.
OF_THE_TOWER = "model.visual.blocks.0.attn.qkv"
FIRST_LAYER = "model.language_model.layers.0"
SHARED_GATE = f"{FIRST_LAYER}.mlp.shared_expert_gate"
# Linear layers of a language model, by block: their name in vLLM, which packs some into one, and those in transformers.
ATTENTION = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
}
DELTA_NET = {
    "in_proj_qkvz": ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
    "in_proj_ba": ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
    "out_proj": ("linear_attn.out_proj",),
}
MLP = {
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj"),
    "down_proj": ("mlp.down_proj",),
}
SHARED_EXPERT = {
    "gate_up_proj": ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
    "down_proj": ("mlp.shared_expert.down_proj",),
}
# Keys of config.json that only models with experts have.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

VLLM = "actor_rollout_ref.rollout.engine_kwargs.vllm"
TOWER_KEY = f"{VLLM}.enable_tower_connector_lora"
SERVED_KEY = f"{VLLM}.lora_target_modules"
EXCLUDED_KEY = "actor_rollout_ref.model.exclude_modules"
MERGE_KEY = "actor_rollout_ref.model.lora.merge"


def lora_rank(config: DictConfig) -> int:
    """The rank of the adapters of a recipe, 0 if all weights are trained."""
    model = config.actor_rollout_ref.model
    return int(OmegaConf.select(model, "lora.rank", default=0) or model.lora_rank)


def names_module(modules: str | Iterable[str] | None, name: str) -> bool:
    """Whether PEFT takes a module for one of these: a regular expression over whole names, or ends of names."""
    if isinstance(modules, str):
        return re.fullmatch(modules, name) is not None
    return any(f".{name}".endswith(f".{end}") for end in modules or ())


def excludes_vision(modules: str | Iterable[str] | None) -> bool:
    """Whether `model.exclude_modules` keeps LoRA off the vision tower."""
    return names_module(modules, OF_THE_TOWER)


def problems_of_adapters(config: DictConfig) -> Iterator[str]:
    """Yield why vLLM would generate without some of the adapters that are trained, or with other weights.

    vLLM warns of it at most, and veRL never. A name on Hugging Face that is not known here costs the download of its
    config.json.
    """
    model = config.actor_rollout_ref.model
    if not lora_rank(config):
        return
    path = str(model.path)
    described = config_of(path) or _config_from_hub(path)
    text = described.get("text_config") or described
    has_experts = any(text.get(key) for key in EXPERTS)
    if model.lora.get("merge"):
        # FSDPEngine._merged_lora_per_tensor_param does not call unfuse_moe_params.
        if has_experts:
            yield (
                f"{MERGE_KEY}=True does not go with {path}, which has experts: veRL 0.9.1 sends vLLM their weights in "
                "a layout that vLLM does not expect. Set it to False"
            )
        return
    # What follows is due to vllm/lora/model_manager.py.
    is_known = described.get("model_type") in MODEL_FAMILIES
    if (
        is_known
        and "vision_config" in described
        and not excludes_vision(model.exclude_modules)
        and not OmegaConf.select(config, TOWER_KEY)
    ):
        merge = "" if has_experts else f", or merge adapters before they are sent ({MERGE_KEY}=True)"
        yield (
            "adapters of the vision tower would be trained, and vLLM would leave them out: set "
            f"{EXCLUDED_KEY}='.*visual.*'{merge}, or have vLLM serve them, an experiment (+{TOWER_KEY}=True)"
        )
    # vLLM computes the gate under a second name, which gets no adapter.
    if text.get("shared_expert_intermediate_size") and _is_adapted(model, SHARED_GATE):
        yield (
            f"an adapter of the gate of the shared expert of {path} would be trained, and vLLM would leave it out: set "
            f"{EXCLUDED_KEY}='.*(visual|shared_expert_gate).*', as model=qwen3_5_35b_a3b does"
        )
    served = OmegaConf.select(config, SERVED_KEY)
    if is_known and served is not None and (missing := _unserved(model, text, has_experts, {*served})):
        yield (
            f"adapters of {', '.join(missing)} would be trained, and vLLM would leave them out: {SERVED_KEY}="
            f"[{','.join(served)}] lacks these layers of {path}. Add them, choose the model option of this "
            "model's family, or train adapters of the others only (actor_rollout_ref.model.target_modules)"
        )


def _unserved(model: DictConfig, text: Mapping[str, Any], has_experts: bool, served: set[str]) -> list[str]:
    """The linear layers of a language model, as vLLM names them, that have adapters and are not to be served."""
    blocks = [ATTENTION]
    if "linear_num_value_heads" in text:
        blocks.append(DELTA_NET)
    if not has_experts:
        blocks.append(MLP)
    elif text.get("shared_expert_intermediate_size"):
        blocks.append(SHARED_EXPERT)
    return [
        name
        for block in blocks
        for name, parts in block.items()
        # One of its parts is enough for vLLM to serve a packed layer.
        if not served & {name, *(part.rpartition(".")[2] for part in parts)}
        and any(_is_adapted(model, f"{FIRST_LAYER}.{part}") for part in parts)
    ]


def _is_adapted(model: DictConfig, name: str) -> bool:
    if names_module(model.exclude_modules, name):
        return False
    return model.target_modules == "all-linear" or names_module(model.target_modules, name)


def _config_from_hub(model: str) -> Mapping[str, Any]:
    from transformers import PretrainedConfig

    return PretrainedConfig.get_config_dict(model)[0]
