"""Pixel values stored as bytes are restored to exactly the values that veRL's engine would get."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessor

from verl_ext.rollout.pixel_codes import COMPUTATION, PIXELS, PixelCoder, expand, names_of


class Processor:
    """The part of a multimodal processor that the coder reads."""

    def __init__(self, images: type = Qwen2VLImageProcessor, **settings: object) -> None:
        self.image_processor = images(**settings)

    def features(self, *images: Image.Image) -> dict[str, torch.Tensor]:
        return dict(self.image_processor(images=list(images), return_tensors="pt"))


class MixingNeighbours(Qwen2VLImageProcessor):
    """Computes each value from more than its own pixel."""

    def rescale_and_normalize(self, images: torch.Tensor, *arguments: object) -> torch.Tensor:
        values = super().rescale_and_normalize(images, *arguments)
        return values if values.dtype == torch.uint8 else values + values.roll(1, dims=-1)


class OneFrame(Qwen2VLImageProcessor):
    """Returns half of the frames that its `temporal_patch_size` declares."""

    def preprocess(self, *images: object, **settings: object) -> dict[str, torch.Tensor]:
        features = super().preprocess(*images, **settings)
        return {**features, PIXELS: features[PIXELS][:, ::2]}


PROCESSORS = {
    "Qwen2.5-VL": Processor(),
    "Qwen3-VL": Processor(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    "not normalized": Processor(do_normalize=False),
    "not rescaled": Processor(do_rescale=False),
    "four frames": Processor(temporal_patch_size=4),
    "many pixels": Processor(size={"shortest_edge": 262144, "longest_edge": 1204224}),
    "few pixels": Processor(size={"shortest_edge": 784, "longest_edge": 2352}),
}


def coder_of(processor: Processor) -> PixelCoder:
    coder = PixelCoder.of(processor)
    assert coder is not None
    return coder


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def size(features: dict[str, torch.Tensor]) -> int:
    return sum(value.nbytes for value in features.values())


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name


@pytest.mark.parametrize("name", PROCESSORS)
def test_features_are_restored_exactly(name: str) -> None:
    processor, coder = PROCESSORS[name], coder_of(PROCESSORS[name])
    for images in ([noise(0, 300, 200)], [Image.new("RGB", (60, 60), "white")], [noise(1, 90, 400), noise(2, 64, 64)]):
        features, stored = processor.features(*images), coder.compact(Processor.features(coder.processor, *images))
        assert_equal(expand(stored), features)
        assert names_of(stored) == features.keys()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(28, 300), st.integers(28, 300), st.sampled_from(("RGB", "L", "RGBA", "P")))
def test_any_image_is_restored_exactly(seed: int, width: int, height: int, mode: str) -> None:
    processor = PROCESSORS["Qwen2.5-VL"]
    coder, image = coder_of(processor), noise(seed, width, height).convert(mode)
    assert_equal(expand(coder.compact(Processor.features(coder.processor, image))), processor.features(image))


@pytest.mark.parametrize("name", ("Qwen2.5-VL", "Qwen3-VL"))
def test_an_image_takes_an_eighth_of_the_bytes(name: str) -> None:
    coder, image = coder_of(PROCESSORS[name]), noise(0, 1000, 1000)
    stored = coder.compact(Processor.features(coder.processor, image))
    assert size(stored) < 1.01 * size(PROCESSORS[name].features(image)) / 8


def test_the_original_processor_is_not_modified() -> None:
    processor = Processor()
    before = processor.features(noise(0, 56, 56))
    coder_of(processor)
    assert_equal(processor.features(noise(0, 56, 56)), before)


def test_features_without_codes_stay_unchanged() -> None:
    features = PROCESSORS["Qwen2.5-VL"].features(noise(0, 56, 56))
    assert expand(features) == features


@pytest.mark.parametrize("images", [MixingNeighbours, OneFrame])
def test_a_processor_with_another_computation_has_no_coder(images: type) -> None:
    assert PixelCoder.of(Processor(images)) is None


@pytest.mark.parametrize("argument", COMPUTATION)
def test_arguments_that_change_the_computation_leave_no_coder(argument: str) -> None:
    assert PixelCoder.of(Processor(), {argument: None}) is None
    assert PixelCoder.of(Processor(), {"min_pixels": 3136}) is not None


def test_a_processor_without_images_has_no_coder() -> None:
    assert PixelCoder.of(None) is None
    assert PixelCoder.of(type("TextAlone", (), {})()) is None
