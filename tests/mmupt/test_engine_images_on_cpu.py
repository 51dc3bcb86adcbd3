"""vLLM profiles memory with the largest image of a run, without a change of how it scales images."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY

from mmupt.compose import load_recipe
from mmupt.training.recipe_run import limit_profiled_images

MODEL = Path("recipes/mmupt/tiny/model")
# The pixel limits of Qwen2.5-VL.
OWN_SIZE = {"shortest_edge": 3136, "longest_edge": 12845056}
LIMITS = ("data.min_pixels=784", "data.max_pixels=78400", "data.validation_min_pixels=784")
KEY = "actor_rollout_ref.rollout.engine_kwargs.vllm.mm_processor_kwargs"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the pixel limits of Qwen2.5-VL, without its weights."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(MODEL, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["size"] = OWN_SIZE
    file.write_text(json.dumps(content))
    return folder


def composed(model: Path, *overrides: str) -> DictConfig:
    fixed = [*LIMITS, "data.validation_max_pixels=94080", f"actor_rollout_ref.model.path={model}"]
    return load_recipe("mmupt_tiny", [*fixed, *overrides])[0]


def arguments_for(model: Path) -> Any:
    """The processor arguments that the launcher gives to vLLM."""
    config = composed(model)
    limit_profiled_images(config)
    return OmegaConf.to_container(OmegaConf.select(config, KEY))


def processor_of_vllm(model: Path, arguments: dict[str, Any] | None) -> Any:
    config = ModelConfig(model=str(model), dtype="float32", max_model_len=512, mm_processor_kwargs=arguments)
    return MULTIMODAL_REGISTRY.create_processor(config)


@pytest.fixture(scope="module")
def plain(model: Path) -> Any:
    return processor_of_vllm(model, None)


@pytest.fixture(scope="module")
def limited(model: Path) -> Any:
    return processor_of_vllm(model, arguments_for(model))


def tokens_of(processor: Any, size: tuple[int, int]) -> int:
    info = processor.info
    return info.get_num_image_tokens(
        image_width=size[0], image_height=size[1], image_processor=info.get_image_processor(), mm_kwargs={}
    )


def test_vllm_knows_the_largest_image_and_counts_the_same_tokens(plain: Any, limited: Any) -> None:
    assert plain.info.get_max_image_tokens() == 16384
    # 94,080 px are 120 tokens; vLLM counts an image twice, because a patch covers two frames.
    assert limited.info.get_max_image_tokens() == 240
    for size in ((280, 336), (28, 3360), (28, 28)):
        assert size[0] * size[1] <= 94080
        expected = max(4, size[0] * size[1] // 784)
        assert tokens_of(limited, size) == tokens_of(plain, size) == expected


def test_vllm_processes_images_identically_with_the_limit(model: Path, plain: Any, limited: Any) -> None:
    image = Image.linear_gradient("L").resize((112, 84)).convert("RGB")
    expected, features = (
        processor.info.get_hf_processor().image_processor(image, return_tensors="pt", **arguments)
        for processor, arguments in ((plain, {}), (limited, arguments_for(model)))
    )
    assert expected["image_grid_thw"].tolist() == features["image_grid_thw"].tolist() == [[1, 6, 8]]
    assert expected["pixel_values"].equal(features["pixel_values"])


def test_a_processor_with_a_smaller_limit_keeps_it() -> None:
    assert arguments_for(MODEL) == {"size": {"shortest_edge": 7056, "longest_edge": 7056}}


@pytest.mark.parametrize(
    "overrides",
    [("data.max_pixels=null",), ("data.validation_max_pixels=null",), (f"+{KEY}.max_pixels=100000",)],
    ids=str,
)
def test_nothing_is_set_without_limits_or_with_the_users_own_limit(overrides: tuple[str, ...]) -> None:
    config = composed(MODEL, *overrides)
    before = OmegaConf.to_container(config.actor_rollout_ref.rollout.engine_kwargs.vllm)
    limit_profiled_images(config)
    assert OmegaConf.to_container(config.actor_rollout_ref.rollout.engine_kwargs.vllm) == before
