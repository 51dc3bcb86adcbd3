"""Qwen3, a language model without images.

Sizes are from config.json of Qwen/Qwen3-* on Hugging Face, as copied in scripts/models/qwen3-*.sh of THUDM/slime.
"""

from collections.abc import Mapping
from typing import Any

from mmupt.models import MODEL_FAMILIES, LanguageShape, LayerShape, ModelFamily, ModelShape, text_config

TEXT_1_7B = text_config(2048, 6144, 28, 16, 8, vocabulary=151936, tied=True, head_dim=128)
TEXT_4B = text_config(2560, 9728, 36, 32, 8, vocabulary=151936, tied=True, head_dim=128)
TEXT_8B = text_config(4096, 12288, 36, 32, 8, vocabulary=151936, tied=False, head_dim=128)
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-1.7B": TEXT_1_7B,
    "Qwen/Qwen3-4B-Instruct-2507": TEXT_4B,
    "Qwen/Qwen3-8B": TEXT_8B,
}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """Return a language model without biases, with norms of the queries and keys of a head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = LayerShape(
        linear=(*attention(config), (hidden, inner), (hidden, inner), (inner, hidden)),
        other=2 * config["head_dim"] + 2 * hidden,
    )
    return LanguageShape.from_config(config, [layer] * config["num_hidden_layers"])


def attention(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return the input and output widths of the query, key, value and output projections.

    The width of all heads together may differ from `hidden_size`.
    """
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    return (hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a Qwen3 from its config.json."""
    return ModelShape(read_language(config), vision=None)


MODEL_FAMILIES.register(ModelFamily("qwen3", read_shape, CONFIGS))
