"""With frozen weights in bf16, adapters and rotary frequencies are in fp32, and small updates change adapters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers_classes import restore_after
from verl.trainer.config import CheckpointConfig
from verl.utils.fsdp_utils import collect_lora_params
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from verl_ext.cpu.engine import CpuFSDPEngineWithLMHead

MODEL = Path("recipes/mmupt/tiny/model")


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def unpatched_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    restore_after(monkeypatch, [type(AutoModelForImageTextToText.from_pretrained(MODEL))])


def engine(model_dtype: str = "bf16") -> Any:
    model = HFModelConfig(
        path=str(MODEL),
        lora_rank=4,
        lora_alpha=2,
        target_modules="all-linear",
        exclude_modules=".*visual.*",
        use_remove_padding=False,
        override_config={"attn_implementation": "sdpa"},
    )
    mixed = {"param_dtype": "bf16", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    config = FSDPEngineConfig(strategy="fsdp2", model_dtype=model_dtype, mixed_precision=mixed, use_torch_compile=False)
    built = CpuFSDPEngineWithLMHead(model, config, FSDPOptimizerConfig(lr=3e-6), CheckpointConfig())
    built.initialize()
    return built


def update(built: Any) -> None:
    tokens = torch.arange(10, 22)[None]
    with torch.autocast("cpu", torch.bfloat16):
        output = built.module(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            position_ids=torch.arange(12).expand(4, 1, 12),
            use_cache=False,
        )
    output.logits.float().log_softmax(-1)[..., 0].sum().backward()
    built.optimizer_step()
    built.optimizer_zero_grad()


def adapters(built: Any) -> dict[str, torch.Tensor]:
    parameters = built.module.named_parameters()
    return {name: parameter.full_tensor().detach().clone() for name, parameter in parameters if "lora_" in name}


def frequencies(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.split("model.")[-1]: buffer for name, buffer in module.named_buffers() if name.endswith("inv_freq")}


def test_every_adapter_changes_with_verls_learning_rate() -> None:
    built = engine()
    frozen = {weight.dtype for name, weight in built.module.named_parameters() if "lora_" not in name}
    before = adapters(built)
    assert frozen == {torch.bfloat16} and {weight.dtype for weight in before.values()} == {torch.float32}
    # The first update changes B alone, which is zero: A has no gradient until then.
    update(built)
    update(built)
    after = adapters(built)
    assert all((after[name] != before[name]).float().mean() > 0.5 for name in before)


def test_adapters_gathered_by_layer_equal_adapters_gathered_at_once() -> None:
    built = engine()
    update(built)
    by_layer, at_once = (
        collect_lora_params(built.module, layered_summon=layered, base_sync_done=True) for layered in (True, False)
    )
    assert by_layer.keys() == at_once.keys() and len(by_layer) == len(adapters(built))
    assert all(torch.equal(by_layer[name], at_once[name]) for name in at_once)


def test_rotary_frequencies_equal_those_of_the_fp32_model() -> None:
    expected = frequencies(AutoModelForImageTextToText.from_pretrained(MODEL))
    actual = frequencies(engine().module)
    assert len(actual) == len(expected) > 2
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_unpatched_adapters_are_still_cast_and_most_weights_of_a_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FSDPEngine, "_build_lora_module", FSDPEngine._build_lora_module.__wrapped__)
    built = engine()
    before = adapters(built)
    update(built)
    update(built)
    after = adapters(built)
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}
    assert all((after[name] != before[name]).float().mean() < 0.5 for name in before if "lora_A" in name)


def test_unpatched_rotary_frequencies_are_still_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FSDPEngine, "_build_module", FSDPEngine._build_module.__wrapped__)
    assert {buffer.dtype for buffer in frequencies(engine().module).values()} == {torch.bfloat16}
