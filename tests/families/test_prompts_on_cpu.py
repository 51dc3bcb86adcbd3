"""Prompts of every family: one processor call, as many image tokens as features, and veRL's positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from rollouts import N, Server, message, rollout
from tiny_families import FAMILIES, Family, noise
from verl.utils.tokenizer import hf_processor, hf_tokenizer
from verl.workers.rollout.vllm_rollout import vllm_async_server

from mmupt_data.figure_task import encode_png
from verl_ext.datasets.response_dataset import ResponseDataset
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ
from verl_ext.rollout.pixel_codes import CODES, PixelCoder, expand

QUESTION = "what is the sum of the three bars ?"
# Width and height of each image: none, one of the preferred size, one with odd sides, several.
SIDES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "text": (),
    "one": ((96, 96),),
    "odd": ((131, 90),),
    "three": ((84, 84), (150, 90), (60, 200)),
}
WITH_IMAGES = [family for family in FAMILIES.values() if family.has_images]


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.build(tmp_path_factory.mktemp(family.name), steps=0)


@pytest.fixture(scope="module")
def prompts(family: Family) -> dict[str, list[dict[str, Any]]]:
    random = Random(0)
    return {
        name: message(QUESTION, *(noise(random, *side) for side in sides))
        for name, sides in SIDES.items()
        if family.has_images or not sides
    }


@dataclass(frozen=True)
class Rolled:
    """Our worker's rollout of a family's prompts.

    rows: rows of `rollouts.rollout` with fetched features.
    """

    rows: dict[tuple[str, int], dict[str, Any]]
    processor_calls: int
    requests: list[dict[str, Any]]


@pytest.fixture(scope="module")
def ours(folder: Path, prompts: dict[str, Any]) -> Rolled:
    requests: list[dict[str, Any]] = []
    model = [f"actor_rollout_ref.model.path={folder}"]
    with pytest.MonkeyPatch.context() as patched:
        server = Server(requests.append)
        rows, calls = rollout(GroupAgentLoopWorker, "shared_prompt_agent", patched, server, prompts, model)
        for row in rows.values():
            row["multi_modal_inputs"] = dict(row["multi_modal_inputs"].items())
    return Rolled(rows, calls, requests)


def test_one_processor_call_per_prompt_gives_the_tensors_of_plain_verl(
    family: Family, folder: Path, prompts: dict[str, Any], ours: Rolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = [f"actor_rollout_ref.model.path={folder}"]
    verls, _ = rollout(_AgentLoopWorkerTQ, "single_turn_agent", monkeypatch, Server(), prompts, model)
    assert not family.has_images or ours.processor_calls == len(prompts)
    assert ours.rows.keys() == verls.keys() and len(ours.rows) == N * len(prompts)
    for key, row in ours.rows.items():
        for name in ("prompts", "responses", "response_mask", "input_ids", "position_ids", "loss_mask"):
            assert torch.equal(row[name], verls[key][name]), (key, name)
        features, expected = row["multi_modal_inputs"], verls[key]["multi_modal_inputs"]
        assert features.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in features.items()), key
    if family.has_images:
        assert next(iter(ours.rows.values()))["position_ids"].shape[0] == 4
        processor = hf_processor(str(folder))
        for (uid, _), request in zip(ours.rows, ours.requests, strict=True):
            # vLLM expects one token per image, which it expands.
            prompt_ids = vllm_async_server.qwen2_5_vl_dedup_image_tokens(request["prompt_ids"], processor)
            assert prompt_ids.count(processor.image_token_id) == len(SIDES[uid]), uid


def test_image_tokens_are_as_many_as_features(family: Family, folder: Path, prompts: dict[str, Any]) -> None:
    if not family.has_images:
        pytest.skip("a family without images")
    model, _ = family.make()
    processor = hf_processor(str(folder))
    for name, messages in prompts.items():
        images = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        if not images:
            continue
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text], images=images, return_tensors="pt")
        output = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        tokens = int((inputs["input_ids"] == processor.image_token_id).sum())
        assert tokens == len(output.pooler_output), name


def test_pixel_values_are_stored_as_bytes(family: Family, folder: Path, prompts: dict[str, Any]) -> None:
    if not family.has_images:
        pytest.skip("a family without images")
    processor = hf_processor(str(folder))
    images = [part["image"] for part in prompts["three"][0]["content"] if part["type"] == "image"]
    features = dict(processor.image_processor(images=images, return_tensors="pt"))
    coder = PixelCoder.of(processor)
    stored = coder.compact(dict(coder.processor.image_processor(images=images, return_tensors="pt")))
    assert CODES in stored and torch.equal(expand(stored)["pixel_values"], features["pixel_values"])


def test_fine_tuning_sees_prompts_as_the_rollout_does(
    folder: Path, prompts: dict[str, Any], ours: Rolled, tmp_path: Path
) -> None:
    rows = []
    for uid, messages in prompts.items():
        images = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        question = "<image>" * len(images) + QUESTION
        stored = [{"bytes": encode_png(image)} for image in images]
        rows.append({"id": uid, "prompt": [{"role": "user", "content": question}], "images": stored, "response": "so"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    absent = ("instruction", "dropped_rows", "generated_share", "min_pixels", "max_pixels")
    config = OmegaConf.create({**dict.fromkeys(absent), "cache_dir": str(tmp_path), "max_length": 512, "seed": 1})
    dataset = ResponseDataset(
        str(tmp_path / "rows.parquet"), hf_tokenizer(str(folder)), config, hf_processor(str(folder))
    )
    for position in range(len(dataset)):
        example = dataset[position]
        row = ours.rows[dataset.dataframe[position]["id"], 1]
        length = len(row["prompts"])
        assert torch.equal(example["input_ids"][:length], row["prompts"])
        assert torch.equal(example["position_ids"][..., :length], row["position_ids"][..., :length])
        features = row["multi_modal_inputs"]
        assert example["multi_modal_inputs"].keys() == features.keys() - {"images_seqlens"}
        assert all(torch.equal(value, features[name]) for name, value in example["multi_modal_inputs"].items())
