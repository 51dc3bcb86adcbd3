"""GLM-4.1V. Its sizes are the defaults of transformers/models/glm4v/configuration_glm4v.py."""

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

TEXT_9B = text_config(4096, 13696, 40, 32, 2, vocabulary=151552, tied=False)
VISION_9B = {
    "depth": 24,
    "hidden_size": 1536,
    # Inner width of the merger; the inner width of the layers is out_hidden_size.
    "intermediate_size": 13696,
    "out_hidden_size": 4096,
    "num_heads": 12,
    "in_channels": 3,
    "image_size": 336,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
CONFIGS = {
    "zai-org/GLM-4.1V-9B-Thinking": {
        "text_config": TEXT_9B,
        "tie_word_embeddings": False,
        "vision_config": VISION_9B,
    },
}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """Return the language model: biases on queries, keys and values, a fused gate, norms on both sides of a block."""
    config = {**TEXT_9B, **config}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    attention = ((hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden))
    layer = LayerShape(
        linear=(*attention, (hidden, 2 * inner), (inner, hidden)),
        other=hidden + 2 * keys + 4 * hidden,
    )
    return LanguageShape.from_config(config, [layer] * config["num_hidden_layers"])


def read_vision(config: Mapping[str, Any]) -> VisionShape:
    """Return the vision tower, which has biases only in its convolutions and the merger's LayerNorm."""
    config = {**VISION_9B, **config}
    width, output, context = config["hidden_size"], config["out_hidden_size"], config["intermediate_size"]
    merge = config["spatial_merge_size"] ** 2
    patch = config["in_channels"] * config["temporal_patch_size"] * config["patch_size"] ** 2
    linear = ((width, 3 * width), (width, width), (width, output), (width, output), (output, width))
    positions = (config["image_size"] // config["patch_size"]) ** 2
    convolutions = (patch + 1) * width + (merge * width + 1) * output
    return VisionShape(
        hidden=width,
        intermediate=output,
        layers=(LayerShape(linear, other=2 * width),) * config["depth"],
        around=LayerShape(
            linear=((output, output), (output, context), (output, context), (context, output)),
            # Two norms of the tower, and the merger's LayerNorm.
            other=positions * width + convolutions + 2 * width + 2 * output,
        ),
        patch=patch,
        merge=merge,
    )


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a GLM-4.1V from its config.json."""
    return ModelShape(read_language(text_of(config)), read_vision(config["vision_config"]))


MODEL_FAMILIES.register(ModelFamily("glm4v", read_shape, CONFIGS))
