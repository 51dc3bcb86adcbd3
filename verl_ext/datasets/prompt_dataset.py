"""The base of the datasets that veRL trains on: adds the instruction and the pixel limits to a row."""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from omegaconf import DictConfig, open_dict
from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_ext.control_text import control_tokens, plain_messages
from verl_ext.datasets.encoded_image import EncodedImage, with_decoded_images
from verl_ext.datasets.message_parts import images_in
from verl_ext.datasets.parquet_reader import write_trainer_rows
from verl_ext.datasets.pixel_limits import accepted_size
from verl_ext.datasets.row_format import with_instruction
from verl_ext.images import shown_size


class PromptDataset(RLHFDataset):
    """veRL's rows whose messages hold the images and, after the question, `data.instruction`, unless that is null.

    Files are read by the project's own reader instead of veRL's, so training sees what the launcher has checked. Their
    rows go into one Arrow file in `data.cache_dir`, from which rows are read one at a time. `verl_ext.control_text`
    escapes control text. Images stay encoded (`EncodedImage`) until the agent loop or a trainer decodes them and scales
    them into `limits` (`verl_ext.datasets.pixel_limits`) by the patch size of the processor.
    """

    def __init__(
        self,
        data_files: str | list[str],
        config: DictConfig,
        *,
        limits: Mapping[str, int],
        dropped: Collection[str] = (),
        **kwargs: Any,
    ) -> None:
        self._limits = limits
        self._dropped = dropped
        # veRL's YAML has 14 for every model. Its dataset prefers that to the processor's own patch size, its agent loop
        # does not: the lengths of prompts and training would use images of other sizes than the rollout.
        with open_dict(config):
            config.image_patch_size = None
        super().__init__(data_files=data_files, config=config, **kwargs)

    def _read_files_and_tokenize(self) -> None:
        files = [str(Path(file).absolute()) for file in self.data_files]
        name = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
        target = Path(self.cache_dir) / f"{name}.arrow"
        write_trainer_rows(self.data_files, target, self._dropped)
        rows = datasets.Dataset.from_file(str(target)).with_transform(_without_json)
        print(f"{', '.join(files)}: {len(rows)} rows, {len(self._dropped)} left out")
        if 0 < self.max_samples < len(rows):
            drawn = np.random.default_rng(self.seed).choice(len(rows), self.max_samples, replace=False)
            rows = rows.select(drawn if self.shuffle else range(self.max_samples))
        self.dataframe = self.maybe_filter_out_long_prompts(rows)

    def _build_messages(self, example: dict, key: str) -> list[dict]:
        # veRL puts the images into the messages that it is given, and would send those with the row once more.
        images = example[self.image_key]
        if images and self.processor is None:
            raise ValueError(f"row {example['id']!r} has images, which the model cannot read: leave the row out")
        *before, question = plain_messages(example[key], len(images), control_tokens(self.tokenizer))
        question["content"] = with_instruction(question["content"], self.config.instruction)
        # veRL would open bytes itself, without orientation and with transparency over black.
        images = [{"image": self._encoded(image["bytes"])} for image in images]
        messages = super()._build_messages({**example, key: [*before, question], self.image_key: images}, key)
        for part in images_in(messages):
            part.update(self._limits)
        return messages

    def _encoded(self, image: bytes) -> EncodedImage:
        return EncodedImage(image, accepted_size(*shown_size(image), self.processor.image_processor, self._limits))

    @classmethod
    async def process_vision_info(
        cls, messages: list[dict], image_patch_size: int, config: DictConfig
    ) -> tuple[list[Image.Image], list]:
        """Read images and videos from the messages of a row like veRL, after decoding encoded images."""
        decoded = await asyncio.to_thread(with_decoded_images, messages)
        return await super().process_vision_info(decoded, image_patch_size, config)

    @classmethod
    def _process_multi_modal_info(cls, messages: list[dict], image_patch_size: int, config: DictConfig) -> Any:
        # veRL calls this in a thread of the agent loop worker.
        return super()._process_multi_modal_info(with_decoded_images(messages), image_patch_size, config)


def _without_json(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows by column, with `extra_info` parsed as veRL expects it."""
    if "extra_info" in columns:
        columns["extra_info"] = [None if text is None else json.loads(text) for text in columns["extra_info"]]
    return columns
