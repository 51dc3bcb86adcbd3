"""Qwen3.5, dense and with experts: three of four layers are a Gated DeltaNet, the fourth attention with an output gate.

Sizes are from config.json of Qwen/Qwen3.5-* on Hugging Face. Sources: for 9B and 35B-A3B the defaults of
transformers/models/qwen3_5*/configuration_qwen3_5*.py; for 0.8B, 4B and 27B scripts/models/qwen3.5-*.sh of THUDM/slime;
for 2B, the heads of the DeltaNet and the vision towers public copies. A test compares all sizes with the number of
parameters that the hub counts in their files.
"""

from collections.abc import Mapping
from typing import Any

from mmupt.models import (
    MODEL_FAMILIES,
    LanguageShape,
    LayerShape,
    ModelFamily,
    ModelShape,
    VisionShape,
    text_config,
    text_of,
)
from mmupt.models.qwen3_vl import VISION, read_vision, whole_config

# Values that all sizes share.
TEXT = {
    "head_dim": 256,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
}


def _text(*sizes: int, value_heads: int, tied: bool) -> dict[str, Any]:
    return text_config(*sizes, vocabulary=248320, tied=tied, linear_num_value_heads=value_heads, **TEXT)


TEXT_0_8B = _text(1024, 3584, 24, 8, 2, value_heads=16, tied=True)
TEXT_2B = _text(2048, 6144, 24, 8, 2, value_heads=16, tied=True)
TEXT_4B = _text(2560, 9216, 32, 16, 4, value_heads=32, tied=True)
TEXT_9B = _text(4096, 12288, 32, 16, 4, value_heads=32, tied=False)
TEXT_27B = _text(5120, 17408, 64, 24, 4, value_heads=48, tied=False)
TEXT_35B_A3B = {
    **TEXT,
    "hidden_size": 2048,
    "num_hidden_layers": 40,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "linear_num_value_heads": 32,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "vocab_size": 248320,
    "tie_word_embeddings": False,
}
VISION_0_8B = {"depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12}
# The vision tower of 2B and 4B.
SMALL_VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}


CONFIGS = {
    "Qwen/Qwen3.5-0.8B": whole_config(TEXT_0_8B, VISION_0_8B),
    "Qwen/Qwen3.5-2B": whole_config(TEXT_2B, SMALL_VISION),
    "Qwen/Qwen3.5-4B": whole_config(TEXT_4B, SMALL_VISION),
    "Qwen/Qwen3.5-9B": whole_config(TEXT_9B, {}),
    "Qwen/Qwen3.5-27B": whole_config(TEXT_27B, {}),
}
CONFIGS_WITH_EXPERTS = {"Qwen/Qwen3.5-35B-A3B": whole_config(TEXT_35B_A3B, {})}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """Return the dense language model."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return _language(config, LayerShape(((hidden, inner), (hidden, inner), (inner, hidden)), other=0), inner)


def read_language_with_experts(config: Mapping[str, Any]) -> LanguageShape:
    """Return the language model with a router, experts and a gated shared expert in every layer."""
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    shared = config["shared_expert_intermediate_size"]
    # LoRA adapts only the shared expert and its gate: the other experts are not linear layers in transformers.
    linear = ((hidden, shared), (hidden, shared), (shared, hidden), (hidden, 1))
    mlp = LayerShape(linear, other=config["num_experts"] * (3 * hidden * inner + hidden))
    return _language(config, mlp, config["num_experts_per_tok"] * inner + shared)


def _language(config: Mapping[str, Any], mlp: LayerShape, intermediate: int) -> LanguageShape:
    """Return a language model of DeltaNet and attention layers with this MLP, all without biases."""
    config = {**TEXT, **config}
    hidden = config["hidden_size"]
    norms = 2 * hidden

    head = config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    # The query projection also computes the output gate.
    projections = ((hidden, 2 * queries), (hidden, keys), (hidden, keys), (queries, hidden))
    attention = LayerShape(projections + mlp.linear, other=2 * head + norms + mlp.other)

    value_heads = config["linear_num_value_heads"]
    key = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    value = value_heads * config["linear_value_head_dim"]
    mixed = 2 * key + value
    inputs = ((hidden, mixed), (hidden, value), (hidden, value_heads), (hidden, value_heads))
    # A convolution per channel, a time step and a decay per head, and a norm that all heads share.
    state = config["linear_conv_kernel_dim"] * mixed + 2 * value_heads + config["linear_value_head_dim"]
    delta_net = LayerShape((*inputs, (value, hidden), *mlp.linear), other=state + norms + mlp.other)

    kinds = config.get("layer_types") or [
        "linear_attention" if number % config["full_attention_interval"] else "full_attention"
        for number in range(1, config["num_hidden_layers"] + 1)
    ]
    return LanguageShape.from_config(
        config,
        [delta_net if kind == "linear_attention" else attention for kind in kinds],
        attention=kinds.count("full_attention"),
        intermediate=intermediate,
    )


def read_tower(config: Mapping[str, Any]) -> VisionShape:
    """Return the vision tower, Qwen3-VL's without DeepStack."""
    return read_vision({**VISION, **config["vision_config"], "deepstack_visual_indexes": []})


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a dense Qwen3.5 from its config.json."""
    return ModelShape(read_language(text_of(config)), read_tower(config))


def read_shape_with_experts(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a Qwen3.5 with experts from its config.json."""
    return ModelShape(read_language_with_experts(text_of(config)), read_tower(config))


MODEL_FAMILIES.register(ModelFamily("qwen3_5", read_shape, CONFIGS))
MODEL_FAMILIES.register(ModelFamily("qwen3_5_moe", read_shape_with_experts, CONFIGS_WITH_EXPERTS))
