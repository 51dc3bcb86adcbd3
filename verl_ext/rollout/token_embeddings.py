"""Embeds responses with the trained model itself, for rewards that compare responses.

The embedding of a response is the mean of the model's input embeddings over its tokens, read from the weights that
training starts from. This needs no server and no second model.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers.utils import cached_file
from verl.utils.fs import copy_to_local

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Suffix of the language model's embedding table; vision towers use another name for their patch embedding.
TENSOR = "embed_tokens.weight"


class TokenEmbeddings:
    """The input embeddings of a model in Hugging Face's format. Rows are read from the memory-mapped file on demand.

    Args:
        model: folder, name on the hub, or a path that veRL copies to this machine (hdfs://).

    Raises:
        ValueError: the model has no safetensors weights, or not one table of input embeddings.
    """

    def __init__(self, model: str) -> None:
        file, name = _find(copy_to_local(model))
        self._rows: Any = safe_open(file, framework="pt").get_slice(name)

    def of(self, responses: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the embeddings of responses, which are given as token ids: (responses, width)."""
        tokens = sorted({token for response in responses for token in response})
        column = {token: number for number, token in enumerate(tokens)}
        shares = np.zeros((len(responses), len(tokens)))
        for number, response in enumerate(responses):
            for token, count in Counter(response).items():
                shares[number, column[token]] = count / len(response)
        rows = torch.cat([self._rows[token : token + 1] for token in tokens]).double().numpy()
        embeddings: NDArray[np.float64] = shares @ rows
        return embeddings


def _find(model: str) -> tuple[str, str]:
    """Return the file and the tensor name of the input embeddings."""
    index = cached_file(model, INDEX, _raise_exceptions_for_missing_entries=False)
    if index is not None:
        files = json.loads(Path(index).read_text())["weight_map"]
    else:
        file = cached_file(model, WEIGHTS, _raise_exceptions_for_missing_entries=False)
        if file is None:
            raise ValueError(f"{model} has neither {WEIGHTS} nor {INDEX}, from which responses are embedded")
        with safe_open(file, framework="pt") as weights:
            files = dict.fromkeys(weights.keys(), WEIGHTS)
    names = [name for name in files if name.endswith(TENSOR)]
    if len(names) != 1:
        raise ValueError(f"{model} has {len(names)} tensors whose names end in {TENSOR}, instead of one")
    path = cached_file(model, files[names[0]])
    assert path is not None
    return path, names[0]
