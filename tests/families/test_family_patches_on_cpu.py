"""The patches for model families work, and the pinned versions of veRL and vLLM still need them."""

from typing import Any

import pytest
import torch
from tiny_families import FAMILIES, randomize
from verl.models.transformers import glm4v, qwen2_vl, qwen3_5, qwen3_vl
from verl.utils import flops_counter, fsdp_utils
from verl.workers.rollout.vllm_rollout import vllm_async_server

from verl_ext.patches import vision_output

MODULES = {
    "qwen2_5_vl": qwen2_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5,
    "glm4v": glm4v,
}
GRID = torch.tensor([[1, 4, 4], [1, 2, 8], [1, 4, 4]])


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model, _ = FAMILIES[name].make()
    randomize(model)
    return model.model


def pixels(model: torch.nn.Module) -> list[torch.Tensor]:
    """The pixel values of three images of 16 patches."""
    config = model.config.vision_config
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, config.in_channels * 2 * config.patch_size**2, generator=generator) for _ in GRID]


def embed(name: str, embed_inputs: Any, model: torch.nn.Module, images: list[int]) -> tuple[list[torch.Tensor], int]:
    """Embed a batch with these images; returns the tensors of `_get_input_embeds` and the images that the tower saw."""
    encoded = 0

    def count(tower: Any, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal encoded
        encoded += len(kwargs["grid_thw"])

    hook = model.visual.register_forward_pre_hook(count, with_kwargs=True)
    values = torch.cat([pixels(model)[image] for image in images])
    input_ids = torch.full((len(images), 5), model.config.image_token_id)
    input_ids[:, 4] = 10
    outputs = embed_inputs(model, input_ids, None, values, None, GRID[images], None)
    hook.remove()
    values_of_outputs = outputs.values() if isinstance(outputs, dict) else outputs
    tensors = [tensor for value in values_of_outputs for tensor in (value if isinstance(value, list) else [value])]
    return [tensor for tensor in tensors if tensor is not None], encoded


@pytest.mark.parametrize("name", MODULES)
def test_the_tower_encodes_each_image_once_with_equal_results(name: str) -> None:
    model, module = model_of(name), MODULES[name]
    images = [0, 1, 0, 0, 2]
    original = module._get_input_embeds
    while hasattr(original, "__wrapped__"):
        original = original.__wrapped__

    def unpatched(model: Any, *args: Any) -> Any:
        # GLM-4.1V needs this patch to run; a test below checks it.
        return vision_output.patched(original, model, *args) if name == "glm4v" else original(model, *args)

    patched_tensors, patched_count = embed(name, module._get_input_embeds, model, images)
    expected_tensors, unpatched_count = embed(name, unpatched, model, images)
    assert (patched_count, unpatched_count) == (3, 5)
    assert len(patched_tensors) == len(expected_tensors) == (5 if "qwen3_vl" in name else 1)
    for tensor, expected in zip(patched_tensors, expected_tensors, strict=True):
        torch.testing.assert_close(tensor, expected)


@pytest.mark.parametrize("name", MODULES)
def test_a_micro_batch_of_text_only_is_embedded_and_reaches_the_vision_tower(name: str) -> None:
    model = model_of(name)
    input_ids = torch.tensor([[10, 11, 12]])
    outputs = MODULES[name]._get_input_embeds(model, input_ids)
    embeddings = outputs["inputs_embeds"] if isinstance(outputs, dict) else outputs[0]
    assert torch.allclose(embeddings, model.get_input_embeddings()(input_ids))
    embeddings.sum().backward()
    assert all(parameter.grad is not None for parameter in model.visual.merger.parameters())


@pytest.mark.parametrize("images", [[], [0]], ids=["text only", "an image"])
def test_unpatched_verl_cannot_embed_a_micro_batch_of_glm(images: list[int]) -> None:
    model, original = model_of("glm4v"), glm4v._get_input_embeds.__wrapped__.__wrapped__
    with pytest.raises(AttributeError):
        if images:
            embed("glm4v", original, model, images)
        else:
            original(model, torch.tensor([[10, 11, 12]]))


def test_vllm_is_sent_one_token_per_image_of_glm() -> None:
    _, processor = FAMILIES["glm4v"].make()
    image = processor.image_token_id
    expanded, sent = [1, *[image] * 4, 2, *[image] * 9, 3, 3], [1, image, 2, image, 3, 3]
    reduce = vllm_async_server.qwen2_5_vl_dedup_image_tokens
    assert reduce(expanded, processor) == sent
    assert reduce.__wrapped__(expanded, processor) == expanded, "veRL no longer needs this patch: remove it"
    assert reduce([1, 1], None) == [1, 1]


def test_the_position_embedding_of_glm_is_sharded_with_the_tower() -> None:
    model, _ = FAMILIES["glm4v"].make()
    layers = model._no_split_modules
    select = fsdp_utils._select_fsdp2_wrap_targets
    embedding = model.model.visual.embeddings.position_embedding
    ours, verls = select(model, layers), select.__wrapped__(model, layers)
    assert any(module is embedding for module in verls), "veRL no longer needs this patch: remove it"
    assert [module for module in verls if module is not embedding] == ours


def test_the_flops_of_glm_are_those_of_its_language_model() -> None:
    config = FAMILIES["glm4v"].make()[0].config
    counter = flops_counter.FlopsCounter(config)
    achieved, _ = counter.estimate_flops([10, 20], 1.0)
    text = config.text_config
    weights = text.num_hidden_layers * 3 * text.hidden_size * text.intermediate_size
    weights += 2 * text.vocab_size * text.hidden_size
    # Six FLOPs per weight and token, plus attention.
    assert 6 * 30 * weights < achieved * 1e12 < 2 * 6 * 30 * weights
    with pytest.raises(AttributeError):
        flops_counter.FlopsCounter.estimate_flops.__wrapped__(counter, [10, 20], 1.0)


def test_vllm_uses_updated_weights_of_experts() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("this vLLM is built for GPUs")
    from verl_ext.patches import vllm_cpu_experts, vllm_cpu_weights

    vllm_cpu_weights.register()
    vllm_cpu_experts.register()
    from vllm.model_executor.layers.fused_moe.cpu_fused_moe import CPUFusedMOE, MoEActivation

    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.w13_weight, layer.w2_weight = (torch.nn.Parameter(torch.rand(shape)) for shape in ((2, 64, 32), (2, 32, 32)))
    experts, inputs = CPUFusedMOE(layer), torch.rand(3, 32)
    layer.w13_weight.data.normal_()
    layer.w2_weight.data.normal_()
    chosen, shares = torch.tensor([[0], [1], [1]], dtype=torch.int32), torch.ones(3, 1)
    outputs = experts.forward_method(layer, inputs, shares, chosen, MoEActivation.SILU, 2)
    for row, (expert,) in enumerate(chosen.tolist()):
        gate, up = (layer.w13_weight[expert] @ inputs[row]).chunk(2)
        torch.testing.assert_close(outputs[row], layer.w2_weight[expert] @ (torch.nn.functional.silu(gate) * up))
