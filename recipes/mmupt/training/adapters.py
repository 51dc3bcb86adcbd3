"""Which modules LoRA adapts, and whether vLLM serves all of their adapters."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.models import MODEL_FAMILIES, config_of

# Module names in transformers, the same in all model families: in the vision tower, the first layer of the language
# model, and the gate of its shared expert.
VISION_MODULE = "model.visual.blocks.0.attn.qkv"
FIRST_LAYER = "model.language_model.layers.0"
SHARED_GATE = f"{FIRST_LAYER}.mlp.shared_expert_gate"
# Linear layers of a language model, by block: name in vLLM, which packs some layers into one -> names in transformers.
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
# Keys of config.json, one of which every mixture-of-experts model has.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

VLLM = "actor_rollout_ref.rollout.engine_kwargs.vllm"
TOWER_KEY = f"{VLLM}.enable_tower_connector_lora"
SERVED_KEY = f"{VLLM}.lora_target_modules"
EXCLUDED_KEY = "actor_rollout_ref.model.exclude_modules"
MERGE_KEY = "actor_rollout_ref.model.lora.merge"


def lora_rank(config: DictConfig) -> int:
    """The LoRA rank of a recipe, 0 if all weights are trained."""
    model = config.actor_rollout_ref.model
    return int(OmegaConf.select(model, "lora.rank", default=0) or model.lora_rank)


def names_module(modules: str | Iterable[str] | None, name: str) -> bool:
    """Whether PEFT matches a module: `modules` is a regular expression for the full name, or a list of name endings."""
    if isinstance(modules, str):
        return re.fullmatch(modules, name) is not None
    return any(f".{name}".endswith(f".{end}") for end in modules or ())


def excludes_vision(modules: str | Iterable[str] | None) -> bool:
    """Whether `model.exclude_modules` keeps LoRA off the vision tower."""
    return names_module(modules, VISION_MODULE)


def problems_of_adapters(config: DictConfig) -> Iterator[str]:
    """Yield the trained adapters that vLLM would ignore, and merged weights that it would misread.

    vLLM only warns about some of these, and veRL about none. A hub name that `mmupt.models` does not know costs the
    download of its config.json.
    """
    model = config.actor_rollout_ref.model
    if not lora_rank(config):
        return
    path = str(model.path)
    model_config = config_of(path) or _config_from_hub(path)
    text = model_config.get("text_config") or model_config
    has_experts = any(text.get(key) for key in EXPERTS)
    if model.lora.get("merge"):
        # FSDPEngine._merged_lora_per_tensor_param does not call unfuse_moe_params.
        if has_experts:
            yield (
                f"{MERGE_KEY}=True does not go with {path}, which has experts: veRL 0.9.1 sends vLLM their weights in "
                "a layout that vLLM does not expect. Set it to False"
            )
        return
    # The remaining checks follow vllm/lora/model_manager.py.
    is_known = model_config.get("model_type") in MODEL_FAMILIES
    if (
        is_known
        and "vision_config" in model_config
        and not excludes_vision(model.exclude_modules)
        and not OmegaConf.select(config, TOWER_KEY)
    ):
        merge = "" if has_experts else f", or merge the adapters before they are sent ({MERGE_KEY}=True)"
        yield (
            "adapters of the vision tower would be trained, but vLLM would leave them out: set "
            f"{EXCLUDED_KEY}='.*visual.*'{merge}, or have vLLM serve them, which is experimental (+{TOWER_KEY}=True)"
        )
    # vLLM runs the gate under a second name, which gets no adapter.
    if text.get("shared_expert_intermediate_size") and _is_adapted(model, SHARED_GATE):
        yield (
            f"an adapter of the gate of the shared expert of {path} would be trained, but vLLM would leave it out: set "
            f"{EXCLUDED_KEY}='.*(visual|shared_expert_gate).*', as model=qwen3_5_35b_a3b does"
        )
    served = OmegaConf.select(config, SERVED_KEY)
    if is_known and served is not None and (missing := _unserved(model, text, has_experts, {*served})):
        yield (
            f"adapters of {', '.join(missing)} would be trained, but vLLM would leave them out: {SERVED_KEY}="
            f"[{','.join(served)}] lacks these layers of {path}. Add them, choose the model option of this "
            "model's family, or train only adapters of other layers (actor_rollout_ref.model.target_modules)"
        )


def _unserved(model: DictConfig, text: Mapping[str, Any], has_experts: bool, served: set[str]) -> list[str]:
    """The linear layers of a language model, by their names in vLLM, whose adapters are trained but not served."""
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
        # vLLM serves a packed layer if any of its parts is listed.
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
