"""Model families: parameter counts of the parts of a model, from its config.json. Loads neither weights nor frameworks.

Only the memory estimate depends on the family; training and evaluation take any language model or vision-language model
that veRL and vLLM support. To add a family, write a module here that registers it; see docs/extending.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ext.registry import Registry


@dataclass(frozen=True)
class LayerShape:
    """One layer, or the modules outside the layers.

    linear: input and output widths of each linear layer, without biases. LoRA adapts these.
    other: number of all other parameters: biases, norms, convolutions, experts, tables.
    """

    linear: tuple[tuple[int, int], ...]
    other: int

    @property
    def parameters(self) -> int:
        """Number of parameters of the layer."""
        return sum(inputs * outputs for inputs, outputs in self.linear) + self.other

    def adapters(self, rank: int) -> int:
        """Return the number of LoRA parameters on all linear layers, rank x (inputs + outputs) per linear layer."""
        return rank * sum(inputs + outputs for inputs, outputs in self.linear)


@dataclass(frozen=True)
class LanguageShape:
    """A language model.

    hidden: width of the residual stream.
    intermediate: inner width of the MLP; with experts, the sum over all experts that process a token.
    vocabulary: number of rows of the embedding table.
    tied: whether the output layer shares the weights of the embedding table.
    cached: numbers per token in the engine's cache: keys and values of all layers with attention.
    layers: all layers, in order.
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
        """Return the shape with these layers and with the config keys that all families share.

        Args:
            config: the language model's part of config.json.
            layers: all layers, in order.
            attention: number of layers with attention; None for all.
            changes: replacements for fields of the shape.
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
        """Number of parameters of embedding table and output layer."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Number of parameters of embeddings, layers and the final norm."""
        return self.embeddings + sum(layer.parameters for layer in self.layers) + self.hidden


@dataclass(frozen=True)
class VisionShape:
    """A vision tower, including the mergers that map its output to visual tokens.

    hidden: width of the residual stream.
    intermediate: inner width of the MLP.
    layers: all layers, in order.
    around: patch embedding, position table, norms outside the layers, and mergers.
    patch: number of pixel values per patch, over all channels and frames.
    merge: number of patches per visual token.
    """

    hidden: int
    intermediate: int
    layers: tuple[LayerShape, ...]
    around: LayerShape
    patch: int
    merge: int

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole tower."""
        return self.around.parameters + sum(layer.parameters for layer in self.layers)


@dataclass(frozen=True)
class ModelShape:
    """A model; `vision` is None for a language model without images."""

    language: LanguageShape
    vision: VisionShape | None

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole model."""
        return self.language.parameters + (self.vision.parameters if self.vision else 0)

    @property
    def largest_layer(self) -> int:
        """Number of parameters of the largest layer."""
        layers = (*self.language.layers, *(self.vision.layers if self.vision else ()))
        return max(layer.parameters for layer in layers)

    def adapters(self, rank: int, with_vision: bool) -> int:
        """Return the number of LoRA parameters on all linear layers except the output layer.

        `with_vision` includes the vision tower.
        """
        layers = [*self.language.layers]
        if self.vision and with_vision:
            layers += [*self.vision.layers, self.vision.around]
        return sum(layer.adapters(rank) for layer in layers)


@dataclass(frozen=True)
class ModelFamily:
    """All models of one `model_type`.

    name: `model_type` in config.json.
    read_shape: function from the content of config.json to the shape.
    configs: name on Hugging Face -> content of config.json, so that an estimate needs no download.
    """

    name: str
    read_shape: Callable[[Mapping[str, Any]], ModelShape]
    configs: Mapping[str, Mapping[str, Any]]


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def text_config(*sizes: int, vocabulary: int, tied: bool, **others: int) -> dict[str, Any]:
    """Return the language model's part of a config.json.

    `sizes` are its hidden size, intermediate size, layers, attention heads and KV heads.
    """
    named = dict(zip(_SIZES, sizes, strict=True))
    return {**named, "vocab_size": vocabulary, "tie_word_embeddings": tied, **others}


def text_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the language model's part of a config.json.

    Adds `tie_word_embeddings`, which transformers 5 writes only at the top level.
    """
    return {**config["text_config"], "tie_word_embeddings": config.get("tie_word_embeddings", False)}


MODEL_FAMILIES: Registry[ModelFamily] = Registry("model family", "mmupt.models")


def config_of(model: str) -> Mapping[str, Any] | None:
    """Return the content of config.json of a local folder or a known name on Hugging Face; None for other names."""
    file = Path(model) / "config.json"
    if file.is_file():
        return json.loads(file.read_text())
    for family in MODEL_FAMILIES.values():
        if model in family.configs:
            return {"model_type": family.name, **family.configs[model]}
    return None


def shape_of(model: str) -> ModelShape | None:
    """Return the shape of the model in a local folder or of a known name on Hugging Face; None for other names."""
    config = config_of(model)
    family = None if config is None else MODEL_FAMILIES.get(config.get("model_type", ""))
    return None if config is None or family is None else family.read_shape(config)
