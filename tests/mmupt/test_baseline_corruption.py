"""Corrupted images of STIC differ clearly, keep their size, and depend on the seed alone."""

from io import BytesIO
from random import Random

import numpy as np
from PIL import Image

from mmupt.baselines.image_corruption import SHORTER_SIDE, corrupt, jitter_colors, lower_resolution
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures

PICTURES = [draw_figure(figure) for figure in sample_figures("train", 12, seed=0)]


def test_a_corrupted_image_is_a_different_png_of_the_same_size() -> None:
    for number, picture in enumerate(PICTURES):
        corrupted = Image.open(BytesIO(corrupt(encode_png(picture), f"a/{number}")))
        assert (corrupted.format, corrupted.mode, corrupted.size) == ("PNG", "RGB", picture.size)
        assert np.abs(np.asarray(corrupted, int) - np.asarray(picture, int)).mean() > 1


def test_the_corruption_of_an_image_depends_on_the_seed_alone() -> None:
    image = encode_png(PICTURES[0])
    assert corrupt(image, "a") == corrupt(image, "a")
    assert len({corrupt(image, str(seed)) for seed in range(20)}) > 5


def test_lower_resolution_keeps_no_more_detail_than_its_pixels_hold() -> None:
    sharp = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8), "RGB")
    low = lower_resolution(sharp)
    again = low.resize((2 * SHORTER_SIDE, SHORTER_SIDE), Image.Resampling.BILINEAR).resize((400, 200), 2)
    assert low.size == sharp.size
    assert np.abs(np.asarray(again, int) - np.asarray(low, int)).mean() < 3
    assert np.abs(np.asarray(sharp, int) - np.asarray(low, int)).mean() > 30


def test_a_small_image_keeps_its_resolution() -> None:
    small = Image.new("RGB", (30, 10), "red")
    assert np.array_equal(lower_resolution(small), small)


def test_jitter_changes_colours() -> None:
    for seed in range(10):
        red = Image.new("RGB", (4, 4), (200, 40, 40))
        color = jitter_colors(red, Random(seed)).getpixel((0, 0))
        assert color != (200, 40, 40)


def test_images_of_other_modes_are_corrupted_too() -> None:
    for mode in ("L", "P", "RGBA", "1"):
        buffer = BytesIO()
        PICTURES[0].convert(mode).save(buffer, format="PNG")
        assert Image.open(BytesIO(corrupt(buffer.getvalue(), mode))).mode == "RGB"
