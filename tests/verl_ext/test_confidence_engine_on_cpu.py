"""veRL's engine returns the self-certainty of every token where the batch asks for it, and is unchanged otherwise."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from verl_ext.confidence_engine import ConfidenceFSDPEngineWithLMHead, self_certainty

LENGTHS, VOCABULARY = (3, 5), 7
TEMPERATURES = torch.tensor([1.0, 0.5])
IS_PACKED = pytest.mark.parametrize("is_packed", [False, True], ids=["padded", "packed"])


def sequences() -> list[torch.Tensor]:
    """Return the logits of each sequence, (tokens, vocabulary)."""
    torch.manual_seed(0)
    return [torch.randn(length, VOCABULARY) for length in LENGTHS]


def outputs(engine_class: type[FSDPEngineWithLMHead], is_packed: bool, **fields: Any) -> dict[str, torch.Tensor]:
    """Return the outputs of an engine for the logits of `sequences`, without a model."""
    engine: Any = object.__new__(engine_class)
    # Chunks of two tokens do not divide the sequences evenly.
    engine.engine_config = SimpleNamespace(
        entropy_from_logits_chunk_size=2, entropy_checkpointing=False, entropy_from_logits_with_chunking=False
    )
    engine.ulysses_sequence_parallel_size = 1
    engine.use_ulysses_sp = False
    ids = torch.nested.as_nested_tensor([torch.arange(length) for length in LENGTHS], layout=torch.jagged)
    batch = TensorDict({"input_ids": ids}, batch_size=len(LENGTHS))
    tensordict_utils.assign_non_tensor(batch, use_remove_padding=is_packed, **fields)
    rolled = torch.roll(ids.values(), shifts=-1)
    if is_packed:
        # Two tokens of padding at the end, which the engine strips.
        logits = torch.cat([*sequences(), torch.zeros(2, VOCABULARY)])[None]
        padded = torch.cat([TEMPERATURES.repeat_interleave(torch.tensor(LENGTHS)), torch.ones(2)])
        rolled = torch.cat([rolled, torch.zeros(2, dtype=rolled.dtype)])
        arguments = {"temperature_rmpad": padded, "pad_size": 2}
    else:
        logits = torch.nn.utils.rnn.pad_sequence(sequences(), batch_first=True)
        arguments = {"temperature": TEMPERATURES}
    arguments |= {"input_ids_rmpad_rolled": rolled, "temperature_is_one": False}
    result: dict[str, torch.Tensor] = engine.prepare_model_outputs(
        SimpleNamespace(logits=logits), arguments, batch, None
    )
    return result


@IS_PACKED
def test_self_certainty_is_the_divergence_of_the_uniform_distribution_from_the_policys(is_packed: bool) -> None:
    values = outputs(ConfidenceFSDPEngineWithLMHead, is_packed, calculate_self_certainty=True)["self_certainty"]
    uniform = torch.full((VOCABULARY,), 1 / VOCABULARY)
    for row, logits, temperature in zip(values.unbind(), sequences(), TEMPERATURES, strict=True):
        log_p = torch.log_softmax(logits / temperature, dim=-1)
        divergence = (uniform * (uniform.log() - log_p)).sum(dim=-1)
        # Like the authors' code, ours leaves out the constant.
        assert torch.allclose(row - torch.log(torch.tensor(float(VOCABULARY))), divergence, atol=1e-5)


@IS_PACKED
def test_all_other_outputs_equal_those_of_verls_engine(is_packed: bool) -> None:
    verls = outputs(FSDPEngineWithLMHead, is_packed)
    ours = outputs(ConfidenceFSDPEngineWithLMHead, is_packed, calculate_self_certainty=True)
    assert outputs(ConfidenceFSDPEngineWithLMHead, is_packed).keys() == verls.keys() == ours.keys() - {"self_certainty"}
    for name, tensor in verls.items():
        assert torch.equal(ours[name].values(), tensor.values())


def test_half_precision_logits_are_computed_in_fp32_without_gradient() -> None:
    logits = torch.randn(5, 1000, dtype=torch.bfloat16, requires_grad=True)
    values = self_certainty(logits, torch.ones(5), rows=2)
    exact = torch.logsumexp(logits.double(), dim=-1) - logits.double().mean(dim=-1)
    assert values.dtype == torch.float32 and not values.requires_grad
    assert torch.allclose(values.double(), exact, atol=1e-5)


@pytest.mark.parametrize(("device", "vendor"), [("cuda", "nvidia"), ("cuda", "amd"), ("cpu", "cpu")])
def test_verl_finds_the_engine_on_every_device(device: str, vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_ENGINE_DEVICE", device)
    monkeypatch.setenv("VERL_ENGINE_VENDOR", vendor)
    engine = EngineRegistry.get_engine_cls("language_model", "fsdp2")
    assert issubclass(engine, ConfidenceFSDPEngineWithLMHead)
