"""Write a model folder with random weights in the shape of a published model, without a download.

    .venv/bin/python benchmarks/gpu/random_model.py Qwen/Qwen2.5-VL-3B-Instruct FOLDER --device cuda

Architecture, processor and image limits are the published ones. The tokenizer is the tiny model's, padded with made-up
words to the vocabulary of the shape, so that vLLM and the actor choose among all tokens. Random weights take the time
and memory of trained weights; their answers mean nothing.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmupt.models import MODEL_FAMILIES
from mmupt.models.qwen2_5_vl import VISION
from mmupt.tiny import FOLDER

# Prefix of a family's name: a model of the family with the sizes of `TINY_TEXT` and `TINY_VISION`, for a CPU.
TINY_PREFIX = "tiny/"
TINY_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}
# The published ids would lie outside a small vocabulary; `write_processor` sets the tokenizer's ids.
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
# Length in tokens above which the tokenizer warns. The tiny model's limit is below a prompt with a large image.
LONGEST_TEXT = 131072
TINY_VISION = {"depth": 2, "hidden_size": 96, "intermediate_size": 192, "num_heads": 3}


def _processor_of_qwen2_5_vl(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    # preprocessor_config.json of Qwen/Qwen2.5-VL-3B-Instruct.
    size = {"shortest_edge": 3136, "longest_edge": 12845056}
    images, videos = Qwen2VLImageProcessor(size=size), Qwen2VLVideoProcessor(size=size)
    return Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=tokenizer.chat_template)


def _processor_of_qwen3_vl(tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    # preprocessor_config.json of Qwen/Qwen3-VL-4B-Instruct.
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    half = [0.5, 0.5, 0.5]
    images = Qwen2VLImageProcessor(size=size, patch_size=16, image_mean=half, image_std=half)
    videos = Qwen3VLVideoProcessor()
    return Qwen3VLProcessor(images, tokenizer, videos, chat_template=tokenizer.chat_template)


@dataclass(frozen=True)
class Family:
    """Keys of config.json that are not in `mmupt.models`, and their replacements in tiny models."""

    text: dict[str, Any]
    vision: dict[str, Any]
    tiny_text: dict[str, Any]
    tiny_vision: dict[str, Any]
    processor: Callable[[Any], Any]


FAMILIES = {
    "qwen2_5_vl": Family(
        text={
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision=VISION,
        tiny_text={"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}},
        tiny_vision={"fullatt_block_indexes": [1]},
        processor=_processor_of_qwen2_5_vl,
    ),
    "qwen3_vl": Family(
        text={
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        vision={},
        tiny_text={
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        tiny_vision={"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        processor=_processor_of_qwen3_vl,
    ),
}


def model_config(model: str) -> Any:
    """Return the Hugging Face config of a published model, by its Hugging Face name, or of `tiny/FAMILY`.

    Raises:
        ValueError: `mmupt.models` has no shape of this name, or `FAMILIES` lacks its family.
    """
    from transformers import AutoConfig

    name, sizes = _family_and_sizes(model)
    family = FAMILIES[name]
    tiny = model.startswith(TINY_PREFIX)
    vision = {**family.vision, **sizes.get("vision_config", {}), **(family.tiny_vision if tiny else {})}
    flat = {key: value for key, value in sizes.items() if key not in ("text_config", "vision_config")}
    text = {**NO_TOKENS, **family.text, **flat, **sizes.get("text_config", {}), **(family.tiny_text if tiny else {})}
    return AutoConfig.for_model(
        name,
        text_config=text,
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def _family_and_sizes(model: str) -> tuple[str, dict[str, Any]]:
    if model.startswith(TINY_PREFIX):
        name = model.removeprefix(TINY_PREFIX)
        if name in FAMILIES:
            return name, {**TINY_TEXT, "vision_config": TINY_VISION}
    for family in MODEL_FAMILIES.values():
        if model in family.configs and family.name in FAMILIES:
            return family.name, dict(family.configs[model])
    known = [name for family in MODEL_FAMILIES.values() if family.name in FAMILIES for name in family.configs]
    tiny = [f"{TINY_PREFIX}{name}" for name in FAMILIES]
    raise ValueError(f"unknown model {model}; choose from {', '.join([*known, *tiny])}")


def write_tokenizer(folder: Path, vocabulary: int) -> Any:
    """Write the tiny model's tokenizer, padded with made-up words to `vocabulary` tokens; returns it."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(FOLDER / name, folder)
    content = json.loads((FOLDER / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words |= {f"madeup{token}": token for token in range(len(words), vocabulary)}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(folder, model_max_length=LONGEST_TEXT)


def write_processor(model: str, folder: Path) -> Any:
    """Write config, tokenizer and processor of a model into `folder`; returns the config."""
    config = model_config(model)
    tokenizer = write_tokenizer(folder, config.text_config.vocab_size)
    FAMILIES[config.model_type].processor(tokenizer).save_pretrained(folder)
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    for name, token in {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }.items():
        setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    config.save_pretrained(folder)
    return config


def build_model(model: str, folder: Path, device: str) -> None:
    """Write a model with random weights into `folder`: bf16 for cuda, fp32 for cpu, as the recipes compute."""
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    config = write_processor(model, folder)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        network = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    text = config.text_config
    network.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    network.save_pretrained(folder)


def main() -> None:
    """Write the given model."""
    parser = argparse.ArgumentParser(description="Write a model with random weights in the shape of a published model.")
    parser.add_argument("model", help=f"a name on Hugging Face, or {TINY_PREFIX}FAMILY")
    parser.add_argument("folder", type=Path, help="target folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="draws the weights (%(default)s)")
    arguments = parser.parse_args()
    build_model(arguments.model, arguments.folder, arguments.device)


if __name__ == "__main__":
    main()
