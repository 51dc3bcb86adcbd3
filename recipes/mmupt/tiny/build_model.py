"""Builds a tiny model: tokenizer, processor, initial weights, warm start and measurements.

The result is a folder that loads like any Qwen2.5-VL. It is meant as a noisy base for demonstrations of label-free
GRPO, not as a good model.

    mmupt tiny-model build [--task figures_hard] [--output recipes/mmupt/tiny/model]
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from mmupt.runtime.export import make_readable
from mmupt.tiny.measure import format_metrics, measure
from mmupt.tiny.tiny_models import TinyModel
from mmupt.tiny.vocabulary import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    IMAGE_PAD,
    TOKENS,
    TURN_END,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    build_tokenizer,
)
from mmupt.tiny.warm_start import Encoder, warm_start
from mmupt_data.figure_task import SIZE, sample_figures


def build_processor(tokens: Sequence[str] = TOKENS) -> Qwen2_5_VLProcessor:
    """The real Qwen2.5-VL processor with a tiny tokenizer; it scales a square image to 84 x 84 px, 9 visual tokens."""
    tokenizer = build_tokenizer(tokens)
    size = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """A stock Qwen2.5-VL with 1.1 million random float32 weights, and one embedding per token of the tokenizer."""

    def token(name: str) -> int:
        return tokenizer.convert_tokens_to_ids(name)

    ends = {"bos_token_id": None, "eos_token_id": token(TURN_END), "pad_token_id": token(END_OF_TEXT)}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "tie_word_embeddings": False,
            **ends,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0, 1],
        },
        tie_word_embeddings=False,
        image_token_id=token(IMAGE_PAD),
        video_token_id=token(VIDEO_PAD),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        dtype="float32",
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **ends)
    return model


def copy_weights(folder: Path, model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Copy the weights of the tiny model in `folder` into `model`, in place.

    Both have the same architecture, and the vocabulary of `model` starts with the tokens of the model in `folder`.
    """
    start = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            # Embeddings of additional tokens keep their random values.
            weight[: len(start[name])].copy_(start[name])


def build(tiny: TinyModel, seed: int) -> None:
    """Build, train and save a model with its processor, and print its size, the time it took and its measurements."""
    torch.manual_seed(seed)
    started = time.monotonic()
    processor = build_processor(tiny.tokens)
    model = build_model(processor.tokenizer)
    if tiny.start is not None:
        copy_weights(tiny.start, model)
    encoder = Encoder(processor, model)
    warm_start(
        model,
        encoder,
        sample_figures("warm_start", tiny.figures, seed, tiny.task),
        tiny.shares,
        clean_steps=tiny.clean_steps,
        steps=tiny.steps,
        seed=seed,
    )
    model.save_pretrained(tiny.folder)
    processor.save_pretrained(tiny.folder)
    make_readable(tiny.folder)
    print(f"{tiny.folder}: {model.num_parameters():,} parameters, {time.monotonic() - started:.0f} s", flush=True)
    print(format_metrics(measure(model, encoder, tiny.task)))
