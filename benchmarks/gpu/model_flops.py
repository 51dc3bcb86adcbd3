"""Floating-point operations of a sequence with one image, for MFU. A multiply-add counts as two.

Only matrix products count: norms, activations, softmax and the embedding table are left out. Logits count for all
tokens, because veRL computes all of them. Recomputation for gradient checkpointing does not count as work of the model.
Covers Qwen2.5-VL and Qwen3-VL; tests/benchmarks compare with torch's FLOP counter.
"""

from dataclasses import dataclass
from typing import Any

# Dense bf16 FLOP/s by CUDA device name, from NVIDIA's data sheets of the H100 SXM and H200 SXM.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


@dataclass(frozen=True)
class Flops:
    """FLOPs of a forward pass, by part. `update` adds the backward pass, which takes twice the forward pass."""

    # Linear layers of the language model and lm_head: 2 x tokens x weights.
    language: float
    # Causal attention of the language model: 2 x tokens^2 x width of all heads per layer, half of the full square.
    causal: float
    # Linear layers of the vision tower and its mergers.
    vision: float
    # Attention of the vision tower: 4 x patches^2 x hidden per layer, or per window in layers with windows.
    vision_attention: float
    # The patch embedding, a part of `vision`. Its input is the image, which needs no gradient.
    pixels: float

    @property
    def forward(self) -> float:
        return self.language + self.causal + self.vision + self.vision_attention

    @property
    def update(self) -> float:
        return self.update_language + self.update_vision

    @property
    def update_language(self) -> float:
        """The part of `update` per sequence."""
        return 3 * (self.language + self.causal)

    @property
    def update_vision(self) -> float:
        """The part of `update` per image; sequences that share an image in a micro-batch share it."""
        return 3 * (self.vision + self.vision_attention) - self.pixels


def flops(config: Any, length: int, rows: int, columns: int) -> Flops:
    """Count the FLOPs of a sequence.

    Args:
        config: Hugging Face config of Qwen2.5-VL or Qwen3-VL.
        length: tokens of the sequence, including visual tokens.
        rows, columns: height and width of its image in patches.
    """
    text, vision = config.text_config, config.vision_config
    hidden, width = text.hidden_size, vision.hidden_size
    head = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    query, key_value = head * text.num_attention_heads, head * text.num_key_value_heads
    layer = 2 * hidden * (query + key_value) + 3 * hidden * text.intermediate_size
    language = length * (text.num_hidden_layers * layer + hidden * text.vocab_size)

    patches, merge = rows * columns, vision.spatial_merge_size**2
    pixels = patches * width * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    windows = getattr(vision, "window_size", None)
    # Qwen2.5-VL has a gated MLP, Qwen3-VL a plain one and a merger for each of its deepstack layers.
    matrices, mergers = (3, 1) if windows else (2, 1 + len(vision.deepstack_visual_indexes))
    blocks = patches * vision.depth * width * (4 * width + matrices * vision.intermediate_size)
    merged = mergers * patches * width * (merge * width + vision.out_hidden_size)

    pairs = vision.depth * patches**2
    if windows:
        side, full = windows // vision.patch_size, len(vision.fullatt_block_indexes)
        pairs = full * patches**2 + (vision.depth - full) * _squares(rows, side) * _squares(columns, side)
    return Flops(
        language=2 * language,
        causal=2 * length**2 * query * text.num_hidden_layers,
        vision=2 * (pixels + blocks + merged),
        vision_attention=4 * pairs * width,
        pixels=2 * pixels,
    )


def _squares(length: int, window: int) -> int:
    """Sum of the squared sizes of the windows, the last of which may be smaller."""
    return length // window * window**2 + (length % window) ** 2
