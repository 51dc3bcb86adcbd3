"""The dataset for veRL's SFT trainer: questions with the responses to learn, chosen by `data.custom_cls`.

veRL's own dataset would train on the line break after the end of a turn, which no policy samples, and insert an image
wherever a response says `<image>`.
"""

from typing import Any

import datasets
import torch
from omegaconf import DictConfig
from transformers import PreTrainedTokenizer, ProcessorMixin
from verl.utils.tokenizer import get_processor_token_id
from verl.utils.tokenizer.continuous_token import ContinuousTokenBuilder, VLContinuousTokenBuilder

from verl_ext.datasets.encoded_image import with_decoded_images
from verl_ext.datasets.pixel_limits import pixel_limits
from verl_ext.datasets.prompt_dataset import PromptDataset
from verl_ext.datasets.response_tokens import turn_tokens

# Processor outputs that models do not take.
NOT_FEATURES = ("attention_mask", "mm_token_type_ids")


class ResponseDataset(PromptDataset):
    """Rows with the prompt columns of `data/mmupt_data/row_schema.py` and a text `response`.

    The prompt is tokenized as in a rollout and followed by the response and its end of turn, which alone carry the
    loss. `data.seed` sets the order of rows, which veRL's sampler would repeat in every epoch.
    """

    def __init__(
        self,
        parquet_files: str | list[str],
        tokenizer: PreTrainedTokenizer,
        config: DictConfig,
        processor: ProcessorMixin | None,
        max_samples: int = -1,
    ) -> None:
        super().__init__(
            data_files=parquet_files,
            config=config,
            limits=pixel_limits(config, training=True),
            tokenizer=tokenizer,
            processor=processor,
            max_samples=max_samples,
        )
        options: dict[str, Any] = {"chat_template_kwargs": dict(self.apply_chat_template_kwargs)}
        self._builder = (
            ContinuousTokenBuilder(tokenizer, **options)
            if processor is None
            else VLContinuousTokenBuilder(tokenizer, processor, **options)
        )

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset) -> datasets.Dataset:
        """Shuffle the rows and keep all of them: the caller has measured their lengths."""
        return dataframe.shuffle(seed=self.config.seed, keep_in_memory=True)

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Return a sequence in the form that veRL's SFT trainer packs.

        `input_ids` and `loss_mask` are int64 (length,), `position_ids` int64 (4, length) for M-RoPE and (length,)
        without a processor, and `multi_modal_inputs` are the image features by veRL's names, empty for text only. The
        mask is 1 for tokens that are trained on.

        Raises:
            ValueError: the sequence is longer than `data.max_length`.
        """
        from qwen_vl_utils import process_vision_info

        row = self.dataframe[item]
        messages = self._build_messages(row, self.prompt_key)
        images, _ = process_vision_info(with_decoded_images(messages), image_patch_size=self.image_patch_size)
        processed: dict[str, Any] = {}
        prompt = self._builder.build_initial_tokens(messages, images=images, mm_inputs_out=processed)
        response = turn_tokens(self.tokenizer, row["response"])
        if (length := len(prompt) + len(response)) > self.config.max_length:
            raise ValueError(f"row {row['id']!r} has {length} tokens: set data.max_length to more, or leave it out")
        tokens = torch.tensor([*prompt, *response])
        return {
            "input_ids": tokens,
            "position_ids": self._positions(tokens, processed.get("image_grid_thw")),
            "loss_mask": torch.tensor([0] * len(prompt) + [1] * len(response)),
            # Present even if empty: veRL's collator uses the keys of the first row.
            "multi_modal_inputs": {name: value for name, value in processed.items() if name not in NOT_FEATURES},
        }

    def _positions(self, tokens: torch.Tensor, grid: torch.Tensor | None) -> torch.Tensor:
        """The position ids that veRL's agent loop computes, by the model family's own function."""
        count = torch.arange(len(tokens))
        if self.processor is None:
            return count
        ids = tokens[None]
        # 1 for the tokens of an image.
        kinds = (ids == get_processor_token_id(self.processor, "image")).long()
        vision, _ = self.processor.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=torch.ones_like(ids)
        )
        return torch.cat([count[None], vision[:, 0]])
