"""Questions as the policy is asked them: what all datasets of this project that veRL trains on have in common."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_ext.control_text import control_tokens, plain_messages
from verl_ext.datasets.pixels import with_margins
from verl_ext.images import decode


class AskedDataset(RLHFDataset):
    """veRL's rows whose messages hold the images and, after the question, `data.instruction`, unless that is null.

    Text of a row that veRL or the tokenizer would read as control is escaped, see `verl_ext.control_text`.
    Images are decoded by `verl_ext.images`, and scaled into `limits`, see `verl_ext.datasets.pixels`, when the agent loop
    or a trainer reads them.
    """

    def __init__(
        self, data_files: str | list[str], config: DictConfig, *, limits: Mapping[str, int], **kwargs: Any
    ) -> None:
        self._limits = limits
        super().__init__(data_files=data_files, config=config, **kwargs)

    def _build_messages(self, example: dict, key: str) -> list[dict]:
        # veRL puts the images into the messages that it is given, and these travel with the row a second time.
        images = example.get(self.image_key) or []
        *before, question = plain_messages(example[key], len(images), control_tokens(self.tokenizer))
        if self.config.instruction is not None:
            question["content"] = f"{question['content']} {self.config.instruction}"
        # veRL opens files by itself, without orientation and with transparency over black.
        images = [
            {"image": with_margins(decode(image["bytes"]).image, self.processor.image_processor, self._limits)}
            if isinstance(image, dict) and image.get("bytes")
            else image
            for image in images
        ]
        messages = super()._build_messages({**example, key: [*before, question], self.image_key: images}, key)
        for message in messages:
            if not isinstance(message["content"], str):
                for part in message["content"]:
                    if part["type"] == "image":
                        part.update(self._limits)
        return messages
