"""Pixel values that are stored as bytes come back as exactly the values that veRL's engine would have been given."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessor

from verl_ext.rollout.pixel_codes import PixelCoder, expand, names_of


class Processor:
    """The part of a multimodal processor that the coder reads."""

    def __init__(self, **settings: object) -> None:
        self.image_processor = Qwen2VLImageProcessor(**settings)


PROCESSORS = {
    "Qwen2.5-VL": Processor(),
    "Qwen3-VL": Processor(patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    "not normalized": Processor(do_normalize=False),
    "not rescaled": Processor(do_rescale=False),
}


def features_of(processor: Processor, *images: Image.Image) -> dict[str, torch.Tensor]:
    return dict(processor.image_processor(images=list(images), return_tensors="pt"))


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def size(features: dict[str, torch.Tensor]) -> int:
    return sum(value.nbytes for value in features.values())


def assert_equal(ones: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert ones.keys() == others.keys()
    for name, value in ones.items():
        assert value.dtype == others[name].dtype and torch.equal(value, others[name]), name


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_is_read_is_what_was_processed(name: str) -> None:
    processor = PROCESSORS[name]
    coder = PixelCoder.of(processor)
    assert coder is not None
    for images in ([noise(0, 300, 200)], [Image.new("RGB", (60, 60), "white")], [noise(1, 90, 400), noise(2, 64, 64)]):
        features = features_of(processor, *images)
        stored = coder.compact(features)
        assert_equal(expand(stored), features)
        assert names_of(stored) == features.keys()


@pytest.mark.parametrize("name", ("Qwen2.5-VL", "Qwen3-VL"))
def test_an_image_takes_an_eighth_of_the_bytes(name: str) -> None:
    processor = PROCESSORS[name]
    coder = PixelCoder.of(processor)
    assert coder is not None
    features = features_of(processor, noise(0, 1000, 1000))
    assert size(coder.compact(features)) < 1.01 * size(features) / 8


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_value_is_changed_whatever_the_features_are(data: st.DataObject) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    coder = PixelCoder(mean, std, frames=2)
    patches, pixels = data.draw(st.integers(0, 300)), data.draw(st.sampled_from((1, 4, 7)))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    for _ in range(3):
        drawn = generator.integers(0, 256, (patches, 3, 1, pixels)) / 255
        values = (drawn - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        values = values.repeat(2, axis=2).astype(np.float32)
        if patches and data.draw(st.booleans()):
            # A value that is no pixel's, or one frame that is not like the other.
            place = (data.draw(st.integers(0, patches - 1)), 1, data.draw(st.integers(0, 1)), 0)
            values[place] = data.draw(st.sampled_from((0.1234567, 1e9, -50.0)))
        features = {
            "pixel_values": torch.from_numpy(values.reshape(patches, 6 * pixels)),
            "image_grid_thw": torch.ones(1, 3),
        }
        assert_equal(expand(coder.compact(features)), features)


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(4, 12, dtype=torch.bfloat16),
        torch.zeros(1, 3, 8, 8),
        torch.zeros(4, 13),
        torch.full((4, 12), torch.nan),
    ],
)
def test_what_is_laid_out_otherwise_stays_as_it_is(values: torch.Tensor) -> None:
    stored = PixelCoder([0.5] * 3, [0.5] * 3, frames=2).compact({"pixel_values": values})
    assert stored["pixel_values"] is values and expand(stored)["pixel_values"] is values


def test_a_processor_without_images_or_of_another_family_has_no_coder() -> None:
    assert PixelCoder.of(None) is None
    assert PixelCoder.of(type("TextAlone", (), {})()) is None
