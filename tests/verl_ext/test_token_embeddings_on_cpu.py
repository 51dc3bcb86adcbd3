"""Responses are embedded by the input embeddings of the model that is trained."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from verl.utils.fs import _record_directory_structure, get_local_temp_path

from verl_ext.rollout.token_embeddings import TokenEmbeddings

TINY = "recipes/mmupt/tiny/model"
TABLE = torch.arange(12.0).reshape(4, 3)


def test_the_embedding_of_a_response_is_the_mean_over_its_tokens() -> None:
    weights = load_file(f"{TINY}/model.safetensors")
    (table,) = [tensor for name, tensor in weights.items() if name.endswith("embed_tokens.weight")]
    embeddings = TokenEmbeddings(TINY).of([[5], [7, 5, 7, 7]])
    expected = torch.stack([table[5], table[[7, 5, 7, 7]].double().mean(0)]).double()
    assert np.allclose(embeddings, expected.numpy())


def test_the_embedding_table_is_found_in_a_sharded_model(tmp_path: Path) -> None:
    save_file({"model.language_model.embed_tokens.weight": TABLE.bfloat16()}, tmp_path / "a.safetensors")
    save_file({"visual.patch_embed.weight": TABLE}, tmp_path / "b.safetensors")
    index = {"model.language_model.embed_tokens.weight": "a.safetensors", "visual.patch_embed.weight": "b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert TokenEmbeddings(str(tmp_path)).of([[0, 2]]).tolist() == [[3.0, 4.0, 5.0]]


def test_the_embedding_table_of_a_remote_model_is_read_from_verls_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # An existing complete copy is reused.
    copy = get_local_temp_path(elsewhere := "hdfs://host/tiny", str(tmp_path))
    shutil.copytree(TINY, copy)
    _record_directory_structure(copy)
    assert np.array_equal(TokenEmbeddings(elsewhere).of([[5, 7]]), TokenEmbeddings(TINY).of([[5, 7]]))


def test_a_model_without_a_readable_embedding_table_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path} has neither model\.safetensors nor"):
        TokenEmbeddings(str(tmp_path))
    save_file({"lm_head.weight": TABLE}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"has 0 tensors whose names end in embed_tokens\.weight"):
        TokenEmbeddings(str(tmp_path))
