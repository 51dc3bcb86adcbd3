"""Model families: how many parameters the parts of a model have, from its config.json. Loads no weights, no framework.

The memory estimate is all that depends on the family; training and evaluation take any vision-language model that veRL
and vLLM support. A new family is a module here that registers it; see docs/extending.md.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ext.registry import Registry


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a vision-language model; the properties count parameters, as Qwen2.5-VL has them.

    A family with other layers overrides the properties in a subclass.
    """

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


MODEL_FAMILIES: Registry[ModelFamily] = Registry("model family", "mmupt.models")


def shape_of(model: str) -> ModelShape | None:
    """The shape of a local folder, by its config.json, or of a known name on Hugging Face; None for all others."""
    file = Path(model) / "config.json"
    if file.is_file():
        config = json.loads(file.read_text())
        family = MODEL_FAMILIES.get(config.get("model_type"))
        return family.read_shape(config) if family else None
    for family in MODEL_FAMILIES.values():
        if model in family.configs:
            return family.read_shape(family.configs[model])
    return None
