"""Qwen3.5: three of four layers are a Gated DeltaNet, the fourth is attention with an output gate.

The tables hold what config.json has at Qwen/Qwen3.5-* on Hugging Face: 9B as the defaults of
transformers/models/qwen3_5/configuration_qwen3_5.py, 0.8B and 4B as scripts/models/qwen3.5-*.sh of THUDM/slime repeat
it, and their heads of the DeltaNet and vision towers as the tests of public ports to MLX do.
"""

from collections.abc import Mapping
from typing import Any

from mmupt.models import MODEL_FAMILIES, LanguageShape, LayerShape, ModelFamily, ModelShape
from mmupt.models.qwen3_vl import VISION, read_vision, text_of, whole_config

# What all sizes share.
TEXT = {
    "head_dim": 256,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "vocab_size": 248320,
}
TEXT_0_8B = {
    **TEXT,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "linear_num_value_heads": 16,
    "tie_word_embeddings": True,
}
TEXT_4B = {
    **TEXT,
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "linear_num_value_heads": 32,
    "tie_word_embeddings": True,
}
TEXT_9B = {
    **TEXT,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "linear_num_value_heads": 32,
    "tie_word_embeddings": False,
}
VISION_0_8B = {"depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12}
VISION_4B = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}


CONFIGS = {
    "Qwen/Qwen3.5-0.8B": whole_config(TEXT_0_8B, VISION_0_8B),
    "Qwen/Qwen3.5-4B": whole_config(TEXT_4B, VISION_4B),
    "Qwen/Qwen3.5-9B": whole_config(TEXT_9B, {}),
}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """The language model, whose layers are of two kinds; none has biases."""
    config = {**TEXT, **config}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    mlp = ((hidden, inner), (hidden, inner), (inner, hidden))
    norms = 2 * hidden

    head = config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    # The projection to queries also makes the output gate.
    projections = ((hidden, 2 * queries), (hidden, keys), (hidden, keys), (queries, hidden))
    attention = LayerShape(projections + mlp, other=2 * head + norms)

    value_heads = config["linear_num_value_heads"]
    key = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    value = value_heads * config["linear_value_head_dim"]
    mixed = 2 * key + value
    inputs = ((hidden, mixed), (hidden, value), (hidden, value_heads), (hidden, value_heads))
    # A convolution per channel, time step and decay of every head, and the norm of a head.
    state = config["linear_conv_kernel_dim"] * mixed + 2 * value_heads + config["linear_value_head_dim"]
    delta_net = LayerShape((*inputs, (value, hidden), *mlp), other=state + norms)

    kinds = config.get("layer_types") or [
        "linear_attention" if number % config["full_attention_interval"] else "full_attention"
        for number in range(1, config["num_hidden_layers"] + 1)
    ]
    return LanguageShape.from_config(
        config,
        layers=tuple(delta_net if kind == "linear_attention" else attention for kind in kinds),
        cached=2 * config["head_dim"] * config["num_key_value_heads"] * kinds.count("full_attention"),
    )


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json of Qwen3.5 describes; its vision tower is Qwen3-VL's without DeepStack."""
    vision = {**VISION, **config["vision_config"], "deepstack_visual_indexes": []}
    return ModelShape(read_language(text_of(config)), read_vision(vision))


MODEL_FAMILIES.register(ModelFamily("qwen3_5", read_shape, CONFIGS))
