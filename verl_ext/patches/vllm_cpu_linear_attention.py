"""Patch `cpu_gdn_attention_core` of `vllm.model_executor.layers.mamba.ops.cpu.gdn_attention`: support float32.

vLLM's CPU kernels for linear attention (Qwen3.5) support only bfloat16, but the CPU recipes compute in float32, so that
actor and vLLM have equal probabilities. For float32, the patch uses the slow reference implementation of transformers.
Loaded by vLLM's own plugin group `vllm.general_plugins`. Remove when the kernels support float32.
"""

from typing import Any

import torch
import wrapt

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Patch the function if vLLM runs on the CPU; RuntimeError if vLLM is then not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_linear_attention"):
        wrapt.register_post_import_hook(_apply, "vllm.model_executor.layers.mamba.ops.cpu.gdn_attention")


def _apply(module: Any) -> None:
    original = module.cpu_gdn_attention_core
    LayerName = module.LayerNameType

    # vLLM registers this function as a torch operator, which needs the annotations.
    def cpu_gdn_attention_core(
        mixed_qkv: torch.Tensor,
        b: torch.Tensor,
        a: torch.Tensor,
        core_attn_out: torch.Tensor,
        layer_name: LayerName,  # type: ignore[valid-type]
    ) -> None:
        if mixed_qkv.dtype == torch.bfloat16:
            original(mixed_qkv, b, a, core_attn_out, layer_name)
            return
        context = module.get_forward_context()
        layer = context.no_compile_layers[module._resolve_layer_name(layer_name)]
        if context.attn_metadata is not None:
            _attend(module, layer, context.attn_metadata[layer.prefix], mixed_qkv, b, a, core_attn_out)

    module.cpu_gdn_attention_core = cpu_gdn_attention_core


def _attend(
    module: Any,
    layer: torch.nn.Module,
    metadata: Any,
    mixed_qkv: torch.Tensor,
    b: torch.Tensor,
    a: torch.Tensor,
    output: torch.Tensor,
) -> None:
    """Attend within each sequence and store its state for the next call, like vLLM's function with its kernels.

    Args:
        layer: vLLM's layer, which holds the states of all sequences.
        metadata: vLLM's `GDNAttentionMetadata`.
        mixed_qkv: (tokens, channels) of all sequences, sequences with one new token first.
        b, a: (tokens, value heads).
        output: written in place, (tokens, value heads, value dimension).
    """
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

    count = metadata.num_decodes + metadata.num_prefills
    if not count:
        return
    slots = metadata.non_spec_state_indices_tensor[:count]
    starts = metadata.non_spec_query_start_loc[: count + 1]
    continued = torch.ones(count, dtype=torch.bool)
    if metadata.num_prefills:
        continued[metadata.num_decodes :] = metadata.has_initial_state[-metadata.num_prefills :]
    convolved, states = layer.kv_cache
    if not module.is_conv_state_dim_first():
        convolved = convolved.transpose(-1, -2)
    mixed_qkv = module.causal_conv1d_torch(
        x=mixed_qkv.transpose(0, 1),
        weight=layer.conv1d.weight.squeeze(1),
        bias=layer.conv1d.bias,
        conv_states=convolved,
        query_start_loc=starts,
        cache_indices=slots,
        has_initial_state=continued,
        activation=layer.activation,
    ).transpose(0, 1)
    query, key, value = layer.rearrange_mixed_qkv(mixed_qkv.contiguous())
    repeats = value.shape[2] // key.shape[2]
    query, key = (heads.repeat_interleave(repeats, dim=2) for heads in (query, key))
    decay = -layer.A_log.float().exp() * torch.nn.functional.softplus(a.float() + layer.dt_bias)
    for sequence, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        slot = slots[sequence]
        # vLLM's kernels store a state as (heads, keys, values), whatever shape the cache declares.
        state = states[slot].view(-1, key.shape[3], value.shape[3])
        attended, last = torch_chunk_gated_delta_rule(
            *(heads[:, start:end] for heads in (query, key, value)),
            g=decay[None, start:end],
            beta=b[None, start:end].sigmoid(),
            initial_state=state[None].float() if continued[sequence] else None,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        output[start:end] = attended[0]
        state.copy_(last[0])
