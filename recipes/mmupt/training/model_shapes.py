"""Shapes of Qwen2.5-VL models, and how many parameters each part has. Arithmetic; no weight and no framework is loaded.

The tables hold what config.json has at Qwen/Qwen2.5-VL-*-Instruct on Hugging Face.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The vision tower; the two large models have another intermediate_size.
VISION = {
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
TEXT_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TEXT_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
TEXT_32B = {
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
TEXT_72B = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
_LARGE_VISION = {"intermediate_size": 3456}
_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": TEXT_3B,
    "Qwen/Qwen2.5-VL-7B-Instruct": TEXT_7B,
    "Qwen/Qwen2.5-VL-32B-Instruct": TEXT_32B | {"vision_config": _LARGE_VISION},
    "Qwen/Qwen2.5-VL-72B-Instruct": TEXT_72B | {"vision_config": _LARGE_VISION},
    # Trained from the 7B model, and of its shape.
    "FanqingM/MM-Eureka-Qwen-7B": TEXT_7B,
    "russwang/ThinkLite-VL-7B": TEXT_7B,
    "WaltonFuture/Qwen2.5-VL-7B-MM-UPT-MMR1": TEXT_7B,
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2.5-VL model; the properties count parameters."""

    hidden: int
    intermediate: int
    layers: int
    # Of the keys, as of the values: hidden size over the query heads that share a key.
    key_value: int
    vocabulary: int
    # Whether the output layer is the embedding table.
    tied: bool
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    # Numbers of a patch, and patches of a visual token.
    patch: int
    merge: int

    @property
    def layer(self) -> int:
        """One layer of the language model: attention with biases, MLP, two norms."""
        attention = 2 * self.hidden**2 + self.hidden + 2 * (self.hidden + 1) * self.key_value
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embeddings(self) -> int:
        """Embedding table and output layer."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def language(self) -> int:
        """Embeddings, layers and the last norm."""
        return self.embeddings + self.layers * self.layer + self.hidden

    @property
    def vision_layer(self) -> int:
        """One layer of the vision tower, all of it with biases."""
        width, inner = self.vision_hidden, self.vision_intermediate
        return 4 * width**2 + 4 * width + 3 * width * inner + 2 * inner + width + 2 * width

    @property
    def vision(self) -> int:
        """Patch embedding, layers and the merger into visual tokens."""
        merged = self.merge * self.vision_hidden
        merger = self.vision_hidden + merged**2 + merged + merged * self.hidden + self.hidden
        return self.patch * self.vision_hidden + self.vision_layers * self.vision_layer + merger

    @property
    def total(self) -> int:
        """All of it."""
        return self.vision + self.language

    def adapters(self, rank: int) -> int:
        """LoRA on every linear layer of the language model's layers: rank x (inputs + outputs) each."""
        attention = 4 * self.hidden + 2 * (self.hidden + self.key_value)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


def shape_of(model: str) -> Shape | None:
    """Return the shape of a local folder (by its config.json) or of a known name on Hugging Face, else None."""
    file = Path(model) / "config.json"
    config = json.loads(file.read_text()) if file.is_file() else _CONFIGS.get(model)
    if config is None or config.get("model_type", "qwen2_5_vl") != "qwen2_5_vl":
        return None
    return read_shape(config)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config.json of Qwen2.5-VL describes, of older layout or newer.

    Older files have the language model's sizes at the top and leave out of the vision tower what is as in `VISION`.
    """
    text = {**config, **config.get("text_config", {})}
    vision = {**VISION, **config.get("vision_config", {})}
    return Shape(
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        layers=text["num_hidden_layers"],
        key_value=text["hidden_size"] * text["num_key_value_heads"] // text["num_attention_heads"],
        vocabulary=text["vocab_size"],
        tied=text.get("tie_word_embeddings", False),
        vision_hidden=vision["hidden_size"],
        vision_intermediate=vision["intermediate_size"],
        vision_layers=vision["depth"],
        patch=vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2,
        merge=vision["spatial_merge_size"] ** 2,
    )
