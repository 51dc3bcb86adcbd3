"""Model families: how many parameters the parts of a model have, from its config.json. Loads no weights, no framework.

The memory estimate is all that depends on the family; training and evaluation take any vision-language model that veRL
and vLLM support, and any language model. A new family is a module here that registers it; see docs/extending.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ext.registry import Registry


@dataclass(frozen=True)
class LayerShape:
    """One layer, or the modules around the layers.

    linear: inputs and outputs of each linear layer, which are what LoRA adapts. Their biases are in `other`.
    other: parameters of everything else: biases, norms, convolutions, experts, tables.
    """

    linear: tuple[tuple[int, int], ...]
    other: int

    @property
    def parameters(self) -> int:
        """Parameters of the layer."""
        return sum(inputs * outputs for inputs, outputs in self.linear) + self.other

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on every linear layer: rank x (inputs + outputs) each."""
        return rank * sum(inputs + outputs for inputs, outputs in self.linear)


@dataclass(frozen=True)
class LanguageShape:
    """A language model.

    hidden: width of the residual stream.
    intermediate: inner width of the MLP; with experts, of those that a token is routed to together.
    vocabulary: rows of the embedding table.
    tied: whether the output layer is the embedding table.
    cached: numbers per token that an engine keeps of a sequence: keys and values of all layers with attention.
    layers: every layer, in order.
    """

    hidden: int
    intermediate: int
    vocabulary: int
    tied: bool
    cached: int
    layers: tuple[LayerShape, ...]

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], layers: Sequence[LayerShape], attention: int | None = None, **changes: Any
    ) -> "LanguageShape":
        """The shape with these layers and, of the language model's config, what all families name alike.

        `attention` is the number of layers with attention, None for all; `changes` replace fields.
        """
        head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        fields = {
            "hidden": config["hidden_size"],
            "intermediate": config.get("intermediate_size"),
            "vocabulary": config["vocab_size"],
            "tied": config.get("tie_word_embeddings", False),
            "cached": 2 * head * config["num_key_value_heads"] * (len(layers) if attention is None else attention),
        }
        return cls(layers=tuple(layers), **{**fields, **changes})

    @property
    def embeddings(self) -> int:
        """Parameters of embedding table and output layer."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of embeddings, layers and the last norm."""
        return self.embeddings + sum(layer.parameters for layer in self.layers) + self.hidden


@dataclass(frozen=True)
class VisionShape:
    """A vision tower with what maps its output to visual tokens.

    hidden: width of the residual stream.
    intermediate: inner width of the MLP.
    layers: every layer, in order.
    around: patch embedding, position table, norms outside the layers, and mergers.
    patch: pixel values of a patch, of all channels and frames.
    merge: patches of a visual token.
    """

    hidden: int
    intermediate: int
    layers: tuple[LayerShape, ...]
    around: LayerShape
    patch: int
    merge: int

    @property
    def parameters(self) -> int:
        """Parameters of the whole tower."""
        return self.around.parameters + sum(layer.parameters for layer in self.layers)


@dataclass(frozen=True)
class ModelShape:
    """A model; `vision` is None for a language model without images."""

    language: LanguageShape
    vision: VisionShape | None

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.language.parameters + (self.vision.parameters if self.vision else 0)

    @property
    def largest_layer(self) -> int:
        """Parameters of the largest layer."""
        layers = (*self.language.layers, *(self.vision.layers if self.vision else ()))
        return max(layer.parameters for layer in layers)

    def adapters(self, rank: int, with_vision: bool) -> int:
        """Parameters of LoRA on every linear layer but the output layer, those of the vision tower included or not."""
        layers = [*self.language.layers]
        if self.vision and with_vision:
            layers += [*self.vision.layers, self.vision.around]
        return sum(layer.adapters(rank) for layer in layers)


@dataclass(frozen=True)
class ModelFamily:
    """The models of one `model_type`.

    name: `model_type` in config.json.
    read_shape: the shape that a config.json describes.
    configs: by name on Hugging Face what config.json has there, so that an estimate needs no download.
    """

    name: str
    read_shape: Callable[[Mapping[str, Any]], ModelShape]
    configs: Mapping[str, Mapping[str, Any]]


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def text_config(*sizes: int, vocabulary: int, tied: bool, **others: int) -> dict[str, Any]:
    """The language model's part of a config.json, from its hidden and intermediate size, layers, heads and KV heads."""
    named = dict(zip(_SIZES, sizes, strict=True))
    return {**named, "vocab_size": vocabulary, "tie_word_embeddings": tied, **others}


def text_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of a config.json, with the key that only the whole of it has in transformers 5."""
    return {**config["text_config"], "tie_word_embeddings": config.get("tie_word_embeddings", False)}


MODEL_FAMILIES: Registry[ModelFamily] = Registry("model family", "mmupt.models")


def config_of(model: str) -> Mapping[str, Any] | None:
    """What config.json has in a local folder or for a known name on Hugging Face; None for all other names."""
    file = Path(model) / "config.json"
    if file.is_file():
        return json.loads(file.read_text())
    for family in MODEL_FAMILIES.values():
        if model in family.configs:
            return {"model_type": family.name, **family.configs[model]}
    return None


def shape_of(model: str) -> ModelShape | None:
    """The shape of a local folder, by its config.json, or of a known name on Hugging Face; None for all others."""
    config = config_of(model)
    family = None if config is None else MODEL_FAMILIES.get(config.get("model_type", ""))
    return None if config is None or family is None else family.read_shape(config)
