"""veRL's FSDP engine with one extra output on request: the self-certainty of every token.

Registered per vendor of CUDA devices, because veRL's `EngineRegistry` prefers a vendor's engine to the device's. The
CPU engine in `verl_ext/cpu` extends it. A pass without the request costs nothing.
"""

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

# Name of the output, in veRL's queue too, and the non-tensor field of a batch that requests it.
SELF_CERTAINTY = "self_certainty"
CALCULATE = "calculate_self_certainty"


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)
class ConfidenceFSDPEngineWithLMHead(FSDPEngineWithLMHead):
    """veRL's engine plus the output `self_certainty` for batches with `calculate_self_certainty`."""

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Return veRL's outputs, nested tensors of (sequences, tokens), and self-certainty in the same shape."""
        certainty = {}
        if tensordict_utils.get_non_tensor_data(micro_batch, key=CALCULATE, default=False):
            certainty[SELF_CERTAINTY] = self._self_certainty(output.logits, output_args, micro_batch)
        return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func) | certainty

    def _self_certainty(
        self, logits: torch.Tensor, output_args: dict[str, Any], micro_batch: TensorDict
    ) -> torch.Tensor:
        offsets, rows = micro_batch["input_ids"].offsets(), self.engine_config.entropy_from_logits_chunk_size
        # Under tensor parallelism, logits are a DTensor.
        logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
        if tensordict_utils.get_non_tensor_data(micro_batch, key="use_remove_padding", default=True):
            packed = self_certainty(logits.squeeze(0), output_args["temperature_rmpad"], rows)
            packed = self._gather_and_unpad_packed(packed, output_args["pad_size"])
        else:
            lengths = offsets.diff().tolist()
            packed = torch.cat(
                [
                    self_certainty(sequence[:length], temperature.expand(length), rows)
                    for sequence, length, temperature in zip(logits, lengths, output_args["temperature"], strict=True)
                ]
            )
        return torch.nested.nested_tensor_from_jagged(packed, offsets)


@torch.no_grad()
def self_certainty(logits: torch.Tensor, temperature: torch.Tensor, rows: int) -> torch.Tensor:
    """Compute logsumexp(z) - mean(z) of the scaled logits z at each token; see `SelfCertaintyReward`.

    Args:
        logits: (tokens, vocabulary).
        temperature: divides the logits, (tokens,).
        rows: number of tokens computed at a time, which avoids a second copy of all logits.

    Returns:
        (tokens,), fp32, in nats.
    """
    certainty = torch.empty(len(logits), device=logits.device)
    for start in range(0, len(logits), rows):
        scaled = logits[start : start + rows].float() / temperature[start : start + rows, None].clamp(min=1e-8)
        certainty[start : start + rows] = torch.logsumexp(scaled, dim=-1) - scaled.mean(dim=-1)
    return certainty
