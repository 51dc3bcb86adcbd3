"""Qwen3-VL, dense and with experts: Qwen3 and a vision tower that also feeds the first layers (DeepStack).

Sizes are from config.json of Qwen/Qwen3-VL-*-Instruct on Hugging Face. Sources: for 2B, 8B and 30B-A3B
torchtitan/experiments/qwen3_vl/__init__.py of pytorch/torchtitan; for 4B a public copy of its config.json, with the
sizes of Qwen3-4B and the tower of 2B.
"""

from collections.abc import Mapping
from typing import Any

from mmupt.models import MODEL_FAMILIES, LanguageShape, LayerShape, ModelFamily, ModelShape, VisionShape, text_of
from mmupt.models.qwen3 import TEXT_1_7B, TEXT_4B, TEXT_8B, attention, read_language

# The vision tower of 8B and 30B-A3B, which is also the default of transformers.
VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
# The vision tower of 2B and 4B.
SMALL_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
TEXT_30B_A3B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}


def whole_config(text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """Return the content of config.json from the parts that differ between sizes."""
    return {
        "text_config": text,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "vision_config": {**vision, "out_hidden_size": text["hidden_size"]},
    }


CONFIGS = {
    "Qwen/Qwen3-VL-2B-Instruct": whole_config(TEXT_1_7B, SMALL_VISION),
    "Qwen/Qwen3-VL-4B-Instruct": whole_config(TEXT_4B, SMALL_VISION),
    "Qwen/Qwen3-VL-8B-Instruct": whole_config(TEXT_8B, VISION),
}
CONFIGS_WITH_EXPERTS = {"Qwen/Qwen3-VL-30B-A3B-Instruct": whole_config(TEXT_30B_A3B, VISION)}


def read_vision(config: Mapping[str, Any]) -> VisionShape:
    """Return the vision tower: biases in every linear layer and LayerNorm, and another merger per DeepStack layer."""
    config = {**VISION, **config}
    width, inner, output = config["hidden_size"], config["intermediate_size"], config["out_hidden_size"]
    merge = config["spatial_merge_size"] ** 2
    merged, deep = merge * width, len(config["deepstack_visual_indexes"])
    patch = config["in_channels"] * config["temporal_patch_size"] * config["patch_size"] ** 2
    linear = ((width, 3 * width), (width, width), (width, inner), (inner, width))
    # The final merger normalizes patches before it merges them, the DeepStack mergers normalize after.
    norms = 2 * width + 2 * merged * deep
    tables = config["num_position_embeddings"] * width + (patch + 1) * width
    return VisionShape(
        hidden=width,
        intermediate=inner,
        layers=(LayerShape(linear, other=4 * width + inner + width + 4 * width),) * config["depth"],
        around=LayerShape(
            linear=((merged, merged), (merged, output)) * (1 + deep),
            other=tables + norms + (1 + deep) * (merged + output),
        ),
        patch=patch,
        merge=merge,
    )


def read_language_with_experts(config: Mapping[str, Any]) -> LanguageShape:
    """Return Qwen3 with a router and experts instead of MLPs; LoRA adapts neither of them."""
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    # transformers 5 saves it as num_local_experts.
    experts = config["num_experts"] if "num_experts" in config else config["num_local_experts"]
    mlp = experts * 3 * hidden * inner + experts * hidden
    layer = LayerShape(attention(config), other=2 * config["head_dim"] + 2 * hidden + mlp)
    return LanguageShape.from_config(
        config, [layer] * config["num_hidden_layers"], intermediate=config["num_experts_per_tok"] * inner
    )


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a dense Qwen3-VL from its config.json."""
    return ModelShape(read_language(text_of(config)), read_vision(config["vision_config"]))


def read_shape_with_experts(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a Qwen3-VL with experts from its config.json."""
    return ModelShape(read_language_with_experts(text_of(config)), read_vision(config["vision_config"]))


MODEL_FAMILIES.register(ModelFamily("qwen3_vl", read_shape, CONFIGS))
MODEL_FAMILIES.register(ModelFamily("qwen3_vl_moe", read_shape_with_experts, CONFIGS_WITH_EXPERTS))
