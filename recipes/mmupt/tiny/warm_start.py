"""The warm start of a tiny model: supervised fine-tuning on demonstrations, in plain PyTorch on one CPU core.

The measurements also use `Encoder`, which converts figures and prompts to tensors. `demonstrations.py` has the
demonstrations.
"""

import math
import time
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from mmupt.tiny.demonstrations import CLEAN_SHARES, Shares, demonstrate
from mmupt.tiny.vocabulary import IMAGE_PAD, TURN_END
from mmupt_data.figure_task import SIZE, Figure, draw_figure

IGNORED = -100
# Demonstrations per step, and peak learning rate of the cosine schedule.
BATCH, LEARNING_RATE = 48, 2e-3


class Encoder:
    """Computes the same tensors for figures and prompts as processor and model, in batches instead of loops.

    Every prompt has one image of fixed size in a fixed place, so positions depend only on the length of a prompt.
    """

    def __init__(self, processor: Qwen2_5_VLProcessor, model: Qwen2_5_VLForConditionalGeneration) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.end = self.tokenizer.convert_tokens_to_ids(TURN_END)
        self._rope_index = model.model.get_rope_index
        self._prompts: dict[str, list[int]] = {}
        merge = processor.image_processor.merge_size
        self._side = SIZE // processor.image_processor.patch_size
        self._visual_tokens = (self._side // merge) ** 2

    def prompt(self, text: str) -> list[int]:
        """Token ids of the user's message, image first, and of the start of the response."""
        if text not in self._prompts:
            content = [{"type": "image"}, {"type": "text", "text": text}]
            message = {"role": "user", "content": content}
            prompt = self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
            self._prompts[text] = self.tokenizer.encode(prompt.replace(IMAGE_PAD, IMAGE_PAD * self._visual_tokens))
        return self._prompts[text]

    def response(self, text: str) -> list[int]:
        """Token ids of a response, including the end of its turn."""
        return [*self.tokenizer.encode(text), self.end]

    def positions(self, length: int) -> Tensor:
        """M-RoPE positions of a sequence that starts with a prompt, int64 (3, 1, length)."""
        ids = torch.zeros(1, length, dtype=torch.long)
        token_types = torch.zeros_like(ids)
        start = self.prompt("").index(self.tokenizer.convert_tokens_to_ids(IMAGE_PAD))
        token_types[:, start : start + self._visual_tokens] = 1
        return self._rope_index(ids, token_types, image_grid_thw=self.grid(1))[0]

    def grid(self, count: int) -> Tensor:
        """The patch grids of `count` images, int64 (count, 3)."""
        return torch.tensor([[1, self._side, self._side]]).expand(count, 3)

    def pixels(self, images: np.ndarray) -> Tensor:
        """Patches of images: uint8 (count, 84, 84, 3) -> float32 (count * 36, 1176)."""
        tensors = list(torch.from_numpy(images).permute(0, 3, 1, 2))
        return self.processor.image_processor(tensors, return_tensors="pt")["pixel_values"]


def render_figures(figures: list[Figure]) -> np.ndarray:
    """Draw the figures as images, uint8 (count, 84, 84, 3)."""
    return np.stack([np.asarray(draw_figure(figure)) for figure in figures])


def warm_start(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    figures: list[Figure],
    shares: Shares,
    *,
    clean_steps: int,
    steps: int,
    seed: int,
) -> None:
    """Train all weights of the model, in place, on demonstrations about the figures.

    A figure's demonstration is drawn anew each time, so that the model learns how often to glance, not which figures to
    get wrong. `shares` are the shares of skills; the first `clean_steps` of the `steps` show only skills that are never
    wrong.
    """
    random = Random(f"warm start/{seed}")
    images = render_figures(figures)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    started = time.monotonic()
    for step in range(steps):
        rows = random.sample(range(len(figures)), BATCH)
        current_shares = CLEAN_SHARES if step < clean_steps else shares
        demonstrations = [demonstrate(figures[row], random, current_shares) for row in rows]
        pairs = [(encoder.prompt(d.prompt), encoder.response(d.response)) for d in demonstrations]
        length = max(len(prompt) + len(response) for prompt, response in pairs)
        ids = torch.full((BATCH, length), encoder.tokenizer.pad_token_id)
        labels = torch.full((BATCH, length), IGNORED)
        for index, (prompt, response) in enumerate(pairs):
            end = len(prompt) + len(response)
            ids[index, :end] = torch.tensor(prompt + response)
            labels[index, len(prompt) : end] = torch.tensor(response)
        # No mask: padding is on the right, where causal attention ignores it.
        logits = model(
            input_ids=ids,
            position_ids=encoder.positions(length).expand(3, BATCH, length),
            pixel_values=encoder.pixels(images[rows]),
            image_grid_thw=encoder.grid(BATCH),
            use_cache=False,
        ).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    model.eval()
