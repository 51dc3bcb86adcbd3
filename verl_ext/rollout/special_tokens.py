"""A vLLM logits processor that never samples a special token, except those that end a response.

A small policy samples image placeholders and chat tokens now and then, and a response with a placeholder in it has no
image to put there: the forward pass of training breaks. An engine takes it by name, for every request alike:
`logits_processors=["verl_ext.rollout.special_tokens:BanSpecialTokens"]`.
"""

import torch
from vllm.config import VllmConfig
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor


class BanSpecialTokens(LogitsProcessor):
    """Gives the banned tokens a logit of minus infinity; which they are, the model folder's tokenizer says."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
        ends = (vllm_config.model_config.try_get_generation_config() or {}).get("eos_token_id", [])
        allowed = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        banned = sorted(set(tokenizer.all_special_ids) - allowed)
        self._banned = torch.tensor(banned, dtype=torch.long, device=device)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill_(-1, self._banned, float("-inf"))

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """The same for every request, so that a change of the batch changes nothing here."""
