"""Images are scaled for the patch size of the model's processor, here 16 px, not for the 14 px in veRL's YAML."""

import asyncio
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
from verl.utils import hf_processor

from mmupt.baselines.preference_pairs import PairCollator
from mmupt.compose import load_recipe
from mmupt.evaluation.messages import engine_prompt
from mmupt.tiny.vocabulary import build_tokenizer
from mmupt.training.row_checks import PromptLengths
from mmupt_data.figure_task import encode_png
from verl_ext.config_checks import check_config
from verl_ext.datasets.response_dataset import ResponseDataset
from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

# Rounded to multiples of 28 px and of 32 px, each of these sizes gives different results.
SIZES = [(300, 200), (131, 90), (60, 200)]
LIMITS: list[dict[str, int]] = [{}, {"min_pixels": 64 * 32 * 32, "max_pixels": 80 * 32 * 32}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a processor of Qwen3-VL and the tiny vocabulary, without weights."""
    folder = tmp_path_factory.mktemp("qwen3_vl")
    tokenizer = build_tokenizer()
    size = {"shortest_edge": 4 * 32 * 32, "longest_edge": 400 * 32 * 32}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=size),
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", **ids}))
    return folder


def noise(width: int, height: int) -> bytes:
    return encode_png(Image.frombytes("RGB", (width, height), Random(width).randbytes(3 * width * height)))


def row_with(*images: bytes) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"{'<image>' * len(images)}what is the sum ?"}]
    return {"id": "a", "prompt": prompt, "images": [{"bytes": image} for image in images]}


def settings(folder: Path, **changes: Any) -> DictConfig:
    """The `data` block that veRL composes, with 14 px, and the keys of this project."""
    package = find_spec("verl")
    assert package is not None and package.submodule_search_locations is not None
    block = OmegaConf.load(Path(package.submodule_search_locations[0], "trainer/config/data/legacy_data.yaml"))
    assert isinstance(block, DictConfig) and block.image_patch_size == 14
    own = {
        "train_files": str(folder / "train.parquet"),
        "val_files": [],
        "cache_dir": str(folder / "cache"),
        "instruction": None,
        "min_pixels": None,
        "max_pixels": None,
        "max_prompt_length": 1024,
        "max_length": 1024,
        "seed": 1,
    }
    merged = OmegaConf.create({**OmegaConf.to_container(block, resolve=False), **own, **changes})  # type: ignore[dict-item]
    assert isinstance(merged, DictConfig)
    return merged


def rollout_images(config: DictConfig, processor: Any) -> Any:
    """Return the images of the first row that veRL's agent loop reads with the processor's patch size."""
    dataset = UnlabelledDataset(
        data_files=config.train_files, tokenizer=processor.tokenizer, config=config, processor=processor
    )
    messages = dataset[0]["raw_prompt"]
    patch = processor.image_processor.patch_size
    images, _, _ = asyncio.run(UnlabelledDataset.process_multi_modal_info(messages, patch, config))
    # veRL measures prompts with these images (`maybe_filter_out_long_prompts`).
    measured, _, _ = UnlabelledDataset._process_multi_modal_info(messages, dataset.image_patch_size, config)
    assert [image.tobytes() for image in measured] == [image.tobytes() for image in images]
    return images


@pytest.mark.parametrize("limits", LIMITS)
def test_rollout_fine_tuning_and_evaluation_use_the_same_pixels(
    limits: Mapping[str, int], model: Path, tmp_path: Path
) -> None:
    processor = hf_processor(str(model))
    row = row_with(*(noise(*size) for size in SIZES))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    images = rollout_images(settings(tmp_path, **limits), processor)
    assert all(side % 32 == 0 for image in images for side in image.size)
    features = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]

    evaluated = engine_prompt(row, processor, limits)["multi_modal_data"]["image"]
    assert [image.tobytes() for image in evaluated] == [image.tobytes() for image in images]
    example = {**row, "response": "so \\boxed{1}"}
    pq.write_table(pa.Table.from_pylist([example]), tmp_path / "responses.parquet")
    config = settings(tmp_path, **limits)
    dataset = ResponseDataset(str(tmp_path / "responses.parquet"), processor.tokenizer, config, processor)
    assert torch.equal(dataset[0]["multi_modal_inputs"]["pixel_values"], features)
    pair = PairCollator(processor, limits)([{**row, "chosen": "so \\boxed{1}", "rejected": "so \\boxed{2}"}])
    assert torch.equal(pair["pixel_values"], torch.cat([features] * 2))


def test_the_computed_length_of_a_prompt_equals_the_length_from_the_processor(model: Path, tmp_path: Path) -> None:
    limits = LIMITS[1]
    overrides = [f"actor_rollout_ref.model.path={model}", "data.instruction=null", "data.max_prompt_length=1"]
    config, _ = load_recipe("mmupt_geometry3k", [*overrides, *(f"data.{key}={value}" for key, value in limits.items())])
    row = row_with(*(noise(*size) for size in SIZES))
    (problem,) = PromptLengths(config, training=True).check(row)
    processor = hf_processor(str(model))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    images = rollout_images(settings(tmp_path, **limits), processor)
    text = "<|im_start|>user\n" + "<|vision_start|><|image_pad|><|vision_end|>" * len(images) + "what is the sum ?"
    text += "<|im_end|>\n<|im_start|>assistant\n"
    tokens = processor(text=[text], images=images)["input_ids"][0]
    assert problem.kind == "long prompt" and problem.detail.startswith(f"{len(tokens)} tokens")


def test_a_training_row_with_an_image_smaller_than_a_visual_token_is_unusable(model: Path) -> None:
    config, _ = load_recipe("mmupt_geometry3k", [f"actor_rollout_ref.model.path={model}"])
    row = row_with(noise(64, 48), noise(30, 40))
    (problem,) = PromptLengths(config, training=True).check(row)
    assert problem.kind == "small image"
    assert problem.detail == "image 1 has 30 x 40 px, under the 32 px of a visual token"
    # The tiny model's visual tokens cover 28 x 28 px, and evaluation accepts any image.
    tiny, _ = load_recipe("mmupt_geometry3k", ["model=tiny", "data.max_prompt_length=2048"])
    assert PromptLengths(tiny, training=True).check(row) == []
    assert PromptLengths(config, training=False).check(row) == []


def test_a_configured_patch_size_is_refused_because_it_is_not_read() -> None:
    config, _ = load_recipe("mmupt_geometry3k")
    check_config(config)
    with pytest.raises(ValueError, match=r"data\.image_patch_size=16 is not read"):
        config.data.image_patch_size = 16
        check_config(config)
