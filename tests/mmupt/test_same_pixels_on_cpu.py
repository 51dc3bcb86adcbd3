"""Every consumer of an image uses the same pixels as a viewer shows: training, evaluation, comparison and pages."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from qwen_vl_utils import fetch_image
from verl.utils import hf_processor

from mmupt.baselines.image_corruption import corrupt
from mmupt.baselines.preference_pairs import PairCollator
from mmupt.evaluation.messages import engine_prompt, rendered
from mmupt.evaluation.response_cache import prompt_row
from mmupt.reports.html_page import pictures
from mmupt_data.fingerprints import image_fingerprint
from mmupt_data.row_problems import problems_of
from mmupt_data.row_schema import Row
from mmupt_data.writer import write_dataset
from verl_ext.datasets.response_dataset import ResponseDataset
from verl_ext.datasets.unlabelled_dataset import UnlabelledDataset

MODEL = "recipes/mmupt/tiny/model"
SIZE = (84, 56)


@cache
def processor() -> Any:
    return hf_processor(MODEL)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def drawing() -> Image.Image:
    image = Image.new("RGB", SIZE, "white")
    image.paste("black", (0, 0, 40, 20))
    image.paste("red", (60, 30, 84, 56))
    return image


def transparent(mode: str) -> bytes:
    """A black rectangle on a transparent background."""
    alpha = Image.new("L", SIZE, 0)
    alpha.paste(255, (0, 0, 40, 20))
    image = Image.new("L", SIZE, 0)
    if mode in ("LA", "RGBA"):
        image.putalpha(alpha)
        return encode(image.convert(mode))
    if mode == "P":
        palette = alpha.convert("P")
        palette.putpalette([0, 0, 0] * 256)
        return encode(palette, transparency=0)
    image = Image.new(mode, SIZE, 7 if mode == "L" else (7, 7, 7))
    image.paste(0 if mode == "L" else (0, 0, 0), (0, 0, 40, 20))
    return encode(image, transparency=7 if mode == "L" else (7, 7, 7))


def black_on_white() -> Image.Image:
    image = Image.new("RGB", SIZE, "white")
    image.paste("black", (0, 0, 40, 20))
    return image


def photo() -> tuple[bytes, Image.Image]:
    """A photo with an orientation in its EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(drawing(), "JPEG", exif=exif)
    return encoded, Image.open(io.BytesIO(encoded)).convert("RGB").rotate(-90, expand=True)


def cmyk() -> tuple[bytes, Image.Image]:
    encoded = encode(drawing().convert("CMYK"), "JPEG")
    return encoded, Image.open(io.BytesIO(encoded)).convert("RGB")


def wide() -> tuple[bytes, Image.Image]:
    image = Image.new("I;16", SIZE, 0x8000)
    return encode(image), Image.new("RGB", SIZE, (128, 128, 128))


# An encoded image of each kind, and the image that a viewer shows.
KINDS: dict[str, Callable[[], tuple[bytes, Image.Image]]] = {
    "plain": lambda: (encode(drawing()), drawing()),
    "LA": lambda: (transparent("LA"), black_on_white()),
    "RGBA": lambda: (transparent("RGBA"), black_on_white()),
    "transparent palette": lambda: (transparent("P"), black_on_white()),
    "transparent grey": lambda: (transparent("L"), black_on_white()),
    "transparent colour": lambda: (transparent("RGB"), black_on_white()),
    "rotated photo": photo,
    "CMYK": cmyk,
    "16 bits": wide,
    "1 bit": lambda: (encode(black_on_white().convert("1")), black_on_white()),
    "animation": lambda: (
        encode(drawing(), "PNG", save_all=True, append_images=[Image.new("RGB", SIZE, "blue")]),
        drawing(),
    ),
}


def settings(folder: Path, **changes: Any) -> DictConfig:
    values = {
        "train_files": str(folder / "train.parquet"),
        "val_files": str(folder / "test.parquet"),
        "filter_overlong_prompts": False,
        "cache_dir": str(folder / "cache"),
        "max_length": 512,
        "seed": 1,
    }
    unset = ("instruction", "dropped_rows", "generated_share", "min_pixels", "max_pixels")
    validation_limits = ("validation_min_pixels", "validation_max_pixels")
    return OmegaConf.create({**dict.fromkeys((*unset, *validation_limits)), **values, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_training_evaluation_comparison_and_pages_use_the_pixels_that_a_viewer_shows(kind: str, tmp_path: Path) -> None:
    encoded, shown = KINDS[kind]()
    expected = fetch_image({"image": shown}, image_patch_size=processor().image_processor.patch_size)
    features = processor().image_processor(images=[expected], return_tensors="pt")["pixel_values"]
    row = Row("a", "own", "<image>what ?", (encoded,), "free_form", "1")
    assert problems_of(row) == []
    write_dataset(tmp_path, {"train": [row], "test": [replace(row, id="b")]}, {})
    stored = pq.read_table(tmp_path / "test.parquet").to_pylist()[0]
    assert stored["images"][0]["bytes"] == encoded

    config = settings(tmp_path)
    for file in ("train", "test"):
        dataset = UnlabelledDataset(
            data_files=str(tmp_path / f"{file}.parquet"),
            tokenizer=processor().tokenizer,
            config=config,
            processor=processor(),
        )
        # Read the image like the agent loop.
        messages = dataset[0]["raw_prompt"]
        images, _ = asyncio.run(
            UnlabelledDataset.process_vision_info(messages, processor().image_processor.patch_size, config)
        )
        assert images[0].tobytes() == expected.tobytes(), file

    # A row of an evaluation and a row of a synthesis.
    for prompt in (stored, prompt_row("c", [encoded], "Write a question.")):
        (image,) = engine_prompt(prompt, processor())["multi_modal_data"]["image"]
        assert image.tobytes() == expected.tobytes()
    (image,) = rendered(stored, processor(), {})[1] or ()
    assert image.tobytes() == expected.tobytes()

    responses = tmp_path / "responses.parquet"
    pq.write_table(pa.Table.from_pylist([{**stored, "response": "so \\boxed{1}"}]), responses)
    example = ResponseDataset(str(responses), processor().tokenizer, config, processor())[0]
    assert torch.equal(example["multi_modal_inputs"]["pixel_values"], features)
    pair = PairCollator(processor())([{**stored, "chosen": "so \\boxed{1}", "rejected": "so \\boxed{2}"}])
    assert torch.equal(pair["pixel_values"], torch.cat([features] * 2))

    assert image_fingerprint(encoded).digest == image_fingerprint(encode(shown)).digest
    assert corrupt(encoded, "seed") == corrupt(encode(shown), "seed")
    assert pictures([encoded]) == pictures([encode(shown)])
