"""Qwen2.5-VL. Sizes are from config.json of Qwen/Qwen2.5-VL-*-Instruct on Hugging Face."""

from collections.abc import Mapping
from typing import Any

from mmupt.models import MODEL_FAMILIES, LanguageShape, LayerShape, ModelFamily, ModelShape, VisionShape, text_config

# The vision tower; 32B and 72B have another intermediate_size.
VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "window_size": 112,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
TEXT_3B = text_config(2048, 11008, 36, 16, 2, vocabulary=151936, tied=True)
TEXT_7B = text_config(3584, 18944, 28, 28, 4, vocabulary=152064, tied=False)
TEXT_32B = text_config(5120, 27648, 64, 40, 8, vocabulary=152064, tied=False)
TEXT_72B = text_config(8192, 29568, 80, 64, 8, vocabulary=152064, tied=False)


def whole_config(text: dict[str, Any], intermediate_size: int = VISION["intermediate_size"]) -> dict[str, Any]:
    """Return the content of config.json from the parts that differ between sizes."""
    vision = {**VISION, "intermediate_size": intermediate_size, "out_hidden_size": text["hidden_size"]}
    return {**text, "vision_config": vision}


CONFIGS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": whole_config(TEXT_3B),
    "Qwen/Qwen2.5-VL-7B-Instruct": whole_config(TEXT_7B),
    "Qwen/Qwen2.5-VL-32B-Instruct": whole_config(TEXT_32B, intermediate_size=3456),
    "Qwen/Qwen2.5-VL-72B-Instruct": whole_config(TEXT_72B, intermediate_size=3456),
    # Trained from the 7B model, so they have its shape.
    "FanqingM/MM-Eureka-Qwen-7B": whole_config(TEXT_7B),
    "russwang/ThinkLite-VL-7B": whole_config(TEXT_7B),
    "WaltonFuture/Qwen2.5-VL-7B-MM-UPT-MMR1": whole_config(TEXT_7B),
}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """Return the language model, Qwen2.5 with biases on queries, keys and values."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    attention = ((hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden))
    mlp = ((hidden, inner), (hidden, inner), (inner, hidden))
    layer = LayerShape(linear=attention + mlp, other=hidden + 2 * keys + 2 * hidden)
    return LanguageShape.from_config(config, [layer] * config["num_hidden_layers"])


def read_vision(config: Mapping[str, Any], hidden: int) -> VisionShape:
    """Return the vision tower, with biases on all linear layers; `hidden` is the width of the language model."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    merge = config["spatial_merge_size"] ** 2
    patch = config["in_channels"] * config["temporal_patch_size"] * config["patch_size"] ** 2
    linear = ((width, 3 * width), (width, width), (width, inner), (width, inner), (inner, width))
    merger = ((merge * width, merge * width), (merge * width, hidden))
    return VisionShape(
        hidden=width,
        intermediate=inner,
        layers=(LayerShape(linear, other=4 * width + 2 * inner + width + 2 * width),) * config["depth"],
        # The patch embedding, which has no bias, and the biases and norm of the merger.
        around=LayerShape(merger, other=patch * width + merge * width + hidden + width),
        patch=patch,
        merge=merge,
    )


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a Qwen2.5-VL from its config.json, in the older or newer layout.

    Older files have the language model's sizes at the top level and omit values of the vision tower as in `VISION`.
    """
    language = read_language({**config, **config.get("text_config", {})})
    vision = {**VISION, **config.get("vision_config", {})}
    return ModelShape(language, read_vision(vision, language.hidden))


MODEL_FAMILIES.register(ModelFamily("qwen2_5_vl", read_shape, CONFIGS))
