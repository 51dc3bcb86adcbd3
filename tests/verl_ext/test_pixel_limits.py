"""Images that a processor's scaling refuses get margins, and stay complete inside them."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from qwen_vl_utils import fetch_image
from transformers import Glm4vImageProcessor, Qwen2VLImageProcessor

from verl_ext.datasets.pixel_limits import accepted_size, largest_area, token_side, visual_tokens, with_margins

PROCESSOR = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280})
PROCESSORS = {
    "Qwen2.5-VL": PROCESSOR,
    "Qwen3-VL": Qwen2VLImageProcessor(size={"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 1280}, patch_size=16),
    "GLM-4.1V": Glm4vImageProcessor(size={"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 1280}),
}
FEW, MANY = 28 * 28 * 30, 28 * 28 * 1280
LIMITS = st.sampled_from([{}, {"max_pixels": FEW}, {"min_pixels": 28 * 28 * 256, "max_pixels": MANY}])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 40), LIMITS, st.booleans(), st.sampled_from(sorted(PROCESSORS)))
def test_every_image_is_accepted_by_the_real_scalings(
    long: int, short: int, limits: dict[str, int], upright: bool, family: str
) -> None:
    processor = PROCESSORS[family]
    image = Image.new("RGB", (short, long) if upright else (long, short), "red")
    shown = with_margins(image, processor, limits)
    scaled = fetch_image({"image": shown, **limits}, image_patch_size=processor.patch_size)
    assert all(side % token_side(processor) == 0 for side in scaled.size)
    _, rows, columns = processor(scaled, return_tensors="np")["image_grid_thw"][0]
    assert visual_tokens(*shown.size, processor, limits) == rows * columns // 4
    # Nothing of the image is lost.
    counts = {color: count for count, color in shown.getcolors(maxcolors=2)}
    assert counts[255, 0, 0] == long * short


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.integers(4, 1280),
    st.integers(0, 1280),
    st.sampled_from(sorted(PROCESSORS)),
)
def test_a_processor_limited_to_the_largest_area_scales_every_image_as_before(
    size: tuple[int, int], tokens: int, more: int, family: str
) -> None:
    processor = PROCESSORS[family]
    area = token_side(processor) ** 2
    limits = {"min_pixels": tokens * area, "max_pixels": (tokens + more) * area}
    limited = deepcopy(processor)
    longest = min(processor.size["longest_edge"], largest_area(limits, processor))
    limited.size = {"shortest_edge": processor.size["shortest_edge"], "longest_edge": longest}
    size = accepted_size(*size, processor, limits)
    assert visual_tokens(*size, limited, limits) == visual_tokens(*size, processor, limits)


@pytest.mark.parametrize(
    ("size", "needs_margins"),
    [
        # Small images are scaled up.
        ((187, 18), False),
        ((1, 1), False),
        # The first scaling accepts it, but the second refuses the result.
        ((5640, 29), True),
        ((2000, 3), True),
    ],
)
def test_only_images_that_would_be_refused_get_margins(size: tuple[int, int], needs_margins: bool) -> None:
    width, height = accepted_size(*size, PROCESSOR, {})
    assert width == size[0]
    assert size[1] < height <= 60 if needs_margins else height == size[1]
