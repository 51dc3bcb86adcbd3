"""Fused kernels give the log-probabilities and gradients of full logits, in every family and under FSDP2."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from transformers_classes import restore_after
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import fsdp_utils
from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

TEMPERATURE = 0.7
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "window_size": 16,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": {**TEXT["rope_parameters"], "mrope_interleaved": True, "partial_rotary_factor": 1.0},
}
GLM_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
TOKENS = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}


@dataclass(frozen=True)
class Family:
    config: type
    model: type
    has_images: bool = True
    text: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=lambda: VISION)

    def build(self, tied: bool) -> Any:
        torch.manual_seed(0)
        if self.has_images:
            config = self.config(
                text_config={**TEXT, **self.text}, vision_config=dict(self.vision), tie_word_embeddings=tied, **TOKENS
            )
            config.text_config.tie_word_embeddings = tied
        else:
            plain = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
            config = self.config(**plain, tie_word_embeddings=tied)
        return self.model._from_config(config, attn_implementation="sdpa", dtype=torch.float32)


FAMILIES = {
    "qwen2_5_vl": Family(transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": Family(transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration),
    "qwen3_5": Family(transformers.Qwen3_5Config, transformers.Qwen3_5ForConditionalGeneration, text=LINEAR),
    "glm4v": Family(transformers.Glm4vConfig, transformers.Glm4vForConditionalGeneration, vision=GLM_VISION),
    "qwen3": Family(transformers.Qwen3Config, transformers.Qwen3ForCausalLM, has_images=False),
}


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def unpatched_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    restore_after(monkeypatch, [family.model for family in FAMILIES.values()])


def run(family: str, tied: bool, fused: bool, mesh: DeviceMesh | None, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return log-probabilities, entropy and all gradients of two padded sequences; a mesh shards the model by FSDP2."""
    model = FAMILIES[family].build(tied)
    backend = "torch" if fused else None
    apply_monkey_patch(model, use_remove_padding=False, use_fused_kernels=fused, fused_kernels_backend=backend)
    if mesh is not None:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=True)
        options = {"mesh": mesh, "mp_policy": policy, "offload_policy": None, "reshard_after_forward": True}
        fsdp_utils.apply_fsdp2(model, options, {})
    torch.manual_seed(1)
    input_ids = torch.randint(3, 80, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    positions = torch.arange(7).expand(2, 7)
    if FAMILIES[family].has_images:
        positions = positions.expand(4, 2, 7)
    extra = {"temperature": TEMPERATURE, "return_dict": True} if fused else {}
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = model(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False, **extra)
        if fused:
            log_probs, entropy = output.log_probs, output.entropy
        else:
            logits = output.logits / TEMPERATURE
            log_probs = logprobs_from_logits(logits.float(), input_ids.roll(-1, dims=1))
            entropy = entropy_from_logits(logits.float())
    (log_probs[mask.bool()].sum() + 0.1 * entropy[mask.bool()].sum()).backward()
    gradients = {
        name: parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {"log_probs": log_probs[mask.bool()].detach(), "entropy": entropy[mask.bool()].detach(), **gradients}


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "fsdp2"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_kernels_give_the_results_of_full_logits(
    family: str, tied: bool, sharded: bool, mesh: DeviceMesh
) -> None:
    shards = mesh if sharded else None
    full = run(family, tied, fused=False, mesh=shards, dtype=torch.float32)
    fused = run(family, tied, fused=True, mesh=shards, dtype=torch.float32)
    assert full.keys() == fused.keys() and any("lm_head" in name or "embed_tokens" in name for name in fused)
    for name, expected in full.items():
        assert torch.allclose(fused[name], expected, atol=1e-5), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_kernels_train_in_bf16_under_fsdp2(family: str, tied: bool, mesh: DeviceMesh) -> None:
    exact = run(family, tied, fused=False, mesh=mesh, dtype=torch.float32)
    fused = run(family, tied, fused=True, mesh=mesh, dtype=torch.bfloat16)
    assert torch.allclose(fused["log_probs"], exact["log_probs"], atol=0.05)
    # Gradients are summed in fp32.
    assert all(tensor.dtype == torch.float32 for name, tensor in fused.items() if name != "entropy")


def test_without_fused_kernels_log_probabilities_in_bf16_are_rounded() -> None:
    logits = torch.randn(4, 96, dtype=torch.bfloat16)
    assert logprobs_from_logits(logits, torch.arange(4)).dtype == torch.bfloat16


# veRL itself gathers the layer of Qwen3.5.
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwen3_5"])
def test_unpatched_a_sharded_output_layer_is_still_broken(
    family: str, mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Undo every patch of this function.
    select = inspect.unwrap(fsdp_utils._select_fsdp2_wrap_targets)
    monkeypatch.setattr(fsdp_utils, "_select_fsdp2_wrap_targets", select)
    with pytest.raises(RuntimeError, match=r"DTensor|same dtype"):
        run(family, tied=False, fused=True, mesh=mesh, dtype=torch.bfloat16)
