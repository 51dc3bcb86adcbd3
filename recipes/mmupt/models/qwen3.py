"""Qwen3, a language model without images.

The tables hold what config.json has at Qwen/Qwen3-* on Hugging Face, as scripts/models/qwen3-*.sh of THUDM/slime repeat
it.
"""

from collections.abc import Mapping
from typing import Any

from mmupt.models import MODEL_FAMILIES, LanguageShape, LayerShape, ModelFamily, ModelShape

TEXT_1_7B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TEXT_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TEXT_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-1.7B": TEXT_1_7B,
    "Qwen/Qwen3-4B-Instruct-2507": TEXT_4B,
    "Qwen/Qwen3-8B": TEXT_8B,
}


def read_language(config: Mapping[str, Any]) -> LanguageShape:
    """A language model without biases, with norms of the queries and keys of a head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = LayerShape(
        linear=(*attention(config), (hidden, inner), (hidden, inner), (inner, hidden)),
        other=2 * config["head_dim"] + 2 * hidden,
    )
    return LanguageShape.from_config(
        config,
        layers=(layer,) * config["num_hidden_layers"],
        cached=2 * config["head_dim"] * config["num_key_value_heads"] * config["num_hidden_layers"],
    )


def attention(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of the projections to queries, keys, values and back; heads need not add up to the width."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    return (hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json of Qwen3 describes."""
    return ModelShape(read_language(config), vision=None)


MODEL_FAMILIES.register(ModelFamily("qwen3", read_shape, CONFIGS))
