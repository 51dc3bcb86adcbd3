"""A tiny random model of every family, with its real architecture, processor and special tokens, and a tiny vocabulary.

All weights are random, including those of norms: with identity values, a lost weight would go unnoticed. A short
training then teaches the form of an answer, without which no vote has a majority.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import (
    GenerationConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from mmupt.runtime.export import restore_expert_layout
from mmupt.tiny.build_model import build_model, build_processor
from mmupt.tiny.vocabulary import (
    END_OF_TEXT,
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    build_tokenizer,
)

# Image side for vision towers with patches of 16 px that are merged 2 x 2: 96 x 96 px, or 9 visual tokens.
SIDE = 96
THINKING = ("<think>", "</think>")
GLM_TOKENS = (
    "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|image|>",
    "<|end_of_image|>", "<|begin_of_video|>", "<|video|>", "<|end_of_video|>", *THINKING,
)  # fmt: skip
# Chat template of GLM-4.1V, reduced to messages without tools.
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part %}<|begin_of_image|><|image|><|end_of_image|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|begin_of_video|><|video|><|end_of_video|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
VISION = {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 128}
INTERLEAVED_ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [6, 5, 5],
    "mrope_interleaved": True,
}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: `model_type` of its config.json.
        make: returns the model and its processor, or its tokenizer for a family without images.
        option: a `model=` option of the family, which sets the adapters to test.
    """

    name: str
    make: Callable[[], tuple[PreTrainedModel, Any]]
    option: str

    @property
    def has_images(self) -> bool:
        return self.name != "qwen3"

    @property
    def has_experts(self) -> bool:
        return self.name.endswith("_moe")

    def build(self, folder: Path, steps: int = 30) -> Path:
        """Write a model, trained for `steps` on the form of an answer; returns `folder`."""
        torch.manual_seed(0)
        model, processor = self.make()
        randomize(model)
        teach_answers(model, processor, self.has_images, steps)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        restore_expert_layout(folder)
        return folder


def randomize(model: PreTrainedModel) -> None:
    """Randomize all weights: matrices keep the scale of their input, norms and biases get noise."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            elif "embed" in name:
                parameter.normal_()
            else:
                # The experts of a layer are one tensor with three dimensions.
                inputs = parameter.shape[-1] if ".experts." in name else parameter[0].numel()
                parameter.normal_(std=inputs**-0.5)


def teach_answers(model: PreTrainedModel, processor: Any, has_images: bool, steps: int) -> None:
    """Train a model to answer any question mostly with a boxed number from 3 to 5."""
    random = Random(0)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "right"
    image = [{"type": "image"}] if has_images else []
    content = [*image, {"type": "text", "text": "what is the sum of the three bars ?"}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    end = tokenizer.eos_token
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        texts = [f"{prompt}so \\boxed{{{random.randint(3, 5)}}}{end}" for _ in range(6)]
        images = {"images": [noise(random) for _ in texts]} if has_images else {}
        inputs = processor(text=texts, **images, padding=True, return_tensors="pt")
        logits = model(**inputs).logits
        # Tokens of a response: "so", "\boxed{", the number, "}" and the end token.
        length = 5
        targets = inputs["input_ids"][:, -length:]
        loss = cross_entropy(logits[:, -length - 1 : -1].flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def noise(random: Random, width: int = 84, height: int = 84) -> Image.Image:
    """Draw an image of coloured noise."""
    return Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))


def tokenizer_with(tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with more special tokens."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    return tokenizer


def qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": IMAGE_PAD,
        "video_token_id": VIDEO_PAD,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def finished(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **ends(tokenizer))
    return model.float()


def qwen2_5_vl() -> tuple[PreTrainedModel, Any]:
    processor = build_processor()
    return build_model(processor.tokenizer), processor


def qwen3_vl_processor() -> Qwen3VLProcessor:
    tokenizer = tokenizer_with(THINKING)
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": 2 * SIDE * SIDE}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=16, **half),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=size, **half),
        chat_template=tokenizer.chat_template,
    )


def qwen3_vl() -> tuple[PreTrainedModel, Any]:
    processor = qwen3_vl_processor()
    tokenizer = processor.tokenizer
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 32,
            "rope_parameters": INTERLEAVED_ROPE,
            **ends(tokenizer),
        },
        vision_config={**VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
        dtype="float32",
        **qwen_ids(tokenizer),
    )
    return finished(Qwen3VLForConditionalGeneration(config), tokenizer), processor


def qwen3_vl_moe() -> tuple[PreTrainedModel, Any]:
    processor = qwen3_vl_processor()
    tokenizer = processor.tokenizer
    config = Qwen3VLMoeConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 32,
            "rope_parameters": INTERLEAVED_ROPE,
            # Neither this nor its double may equal the hidden size: transformers tells layouts of experts by shape.
            "moe_intermediate_size": 48,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            # vLLM reads this from the config; transformers always normalises.
            "norm_topk_prob": True,
            **ends(tokenizer),
        },
        vision_config={**VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
        tie_word_embeddings=False,
        dtype="float32",
        **qwen_ids(tokenizer),
    )
    return finished(Qwen3VLMoeForConditionalGeneration(config), tokenizer), processor


def qwen3_5_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **TEXT,
        "vocab_size": len(tokenizer),
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rope_parameters": {**INTERLEAVED_ROPE, "partial_rotary_factor": 0.5},
        "partial_rotary_factor": 0.5,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        **ends(tokenizer),
    }


def qwen3_5() -> tuple[PreTrainedModel, Any]:
    processor = qwen3_vl_processor()
    tokenizer = processor.tokenizer
    config = Qwen3_5Config(
        text_config=qwen3_5_text(tokenizer),
        vision_config={**VISION, "num_position_embeddings": 64},
        dtype="float32",
        **qwen_ids(tokenizer),
    )
    return finished(Qwen3_5ForConditionalGeneration(config), tokenizer), processor


def qwen3_5_moe() -> tuple[PreTrainedModel, Any]:
    processor = qwen3_vl_processor()
    tokenizer = processor.tokenizer
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    config = Qwen3_5MoeConfig(
        text_config={**qwen3_5_text(tokenizer), **experts, "shared_expert_intermediate_size": 32},
        vision_config={**VISION, "num_position_embeddings": 64},
        dtype="float32",
        **qwen_ids(tokenizer),
    )
    return finished(Qwen3_5MoeForConditionalGeneration(config), tokenizer), processor


def glm4v() -> tuple[PreTrainedModel, Any]:
    tokenizer = tokenizer_with(GLM_TOKENS)
    tokenizer.eos_token = END_OF_TEXT
    tokenizer.chat_template = GLM_TEMPLATE
    size = {"shortest_edge": 2 * 84 * 84, "longest_edge": 4 * 84 * 84}
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(size=size),
        chat_template=GLM_TEMPLATE,
    )
    ids = {
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    }
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 3, 3],
    }
    # vLLM reads attention_bias from the config; transformers always has the bias.
    text = {**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope, "attention_bias": True}
    config = Glm4vConfig(
        text_config={**text, **ends(tokenizer)},
        vision_config={**VISION, "image_size": 112},
        dtype="float32",
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()},
    )
    return finished(Glm4vForConditionalGeneration(config), tokenizer), processor


def qwen3() -> tuple[PreTrainedModel, Any]:
    tokenizer = tokenizer_with(THINKING)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = Qwen3Config(
        **TEXT, vocab_size=len(tokenizer), head_dim=32, rope_parameters=rope, dtype="float32", **ends(tokenizer)
    )
    return finished(Qwen3ForCausalLM(config), tokenizer), tokenizer


FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2_5_vl", qwen2_5_vl, "qwen2_5_vl_7b"),
        Family("qwen3_vl", qwen3_vl, "qwen3_vl_4b"),
        Family("qwen3_vl_moe", qwen3_vl_moe, "qwen3_vl_30b_a3b"),
        Family("qwen3_5", qwen3_5, "qwen3_5_4b"),
        Family("qwen3_5_moe", qwen3_5_moe, "qwen3_5_35b_a3b"),
        Family("glm4v", glm4v, "glm4_1v_9b"),
        Family("qwen3", qwen3, "qwen3_4b"),
    )
}
