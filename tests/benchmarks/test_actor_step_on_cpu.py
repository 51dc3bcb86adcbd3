"""benchmarks/gpu/actor_step.py: the tiny shape runs, FLOPs equal torch's count, and failures are named."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from benchmarks.gpu import actor_step
from benchmarks.gpu.actor_step import SHAPES, cause_of, config_of, make_batch, measure
from benchmarks.gpu.model_flops import flops

TINY = SHAPES["tiny"]


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, actor_step.__file__, "--shapes", "tiny", *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    return process.returncode, json.loads(process.stdout)["cases"]


def test_the_tiny_shape_runs_through_verls_own_worker() -> None:
    status, (case,) = run("--attentions", "sdpa")
    assert status == 0 and case["status"] == "ok" and case["device"] == "CPU"
    tokens = case["workload"]["sequences"] * (case["workload"]["prompt_tokens"] + case["workload"]["response_tokens"])
    for phase in (case["log_prob"], case["update"]):
        assert phase["tokens_per_second"] == pytest.approx(tokens / phase["seconds"], rel=0.01)
        assert phase["model_tflops_per_second"] > 0
        assert phase["mfu"] is phase["peak_memory_gib"] is None


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_an_attention_that_is_not_installed_is_no_failure() -> None:
    status, (case,) = run("--attentions", "flash_attention_2")
    assert (status, case["status"]) == (0, "not installed")


@pytest.mark.parametrize("image", [(140, 196), (224, 112), (84, 84)], ids=str)
def test_flops_equal_torchs_count(image: tuple[int, int]) -> None:
    shape = replace(TINY, sequences=1, image=image)
    config = config_of(shape)
    # The first layer has windows, the second has none.
    config.vision_config.fullatt_block_indexes = [1]
    batch = make_batch(config, shape)
    input_ids, (features,) = batch["input_ids"][0], batch["multi_modal_inputs"]
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids[None], position_ids=batch["position_ids"][0].unsqueeze(1), **features).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    formula = flops(config, len(input_ids), image[0] // 14, image[1] // 14)
    # Eager attention computes the full square.
    formula = replace(formula, causal=2 * formula.causal)
    assert formula.forward == pytest.approx(forward, rel=0.01)
    assert formula.update == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize(("name", "parameters"), [("3b", 3_754_622_976), ("7b", 8_292_166_656)])
def test_the_shapes_have_as_many_parameters_as_the_published_models(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(SHAPES[name]))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("attention", actor_step.ATTENTIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_case_has_room_for_its_sequences_in_a_micro_batch(name: str, attention: str) -> None:
    shape = SHAPES[name]
    config = actor_step.configure(shape, attention, Path("model"))
    tokens = shape.image[0] * shape.image[1] // 28**2 + shape.question + shape.response
    assert tokens <= config.actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu
    assert tokens <= config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu


def test_out_of_memory_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(config: Any) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 18.00 GiB.")

    monkeypatch.setattr(actor_step, "build_worker", no_room)
    measure(TINY, "sdpa", tmp_path / "result.json")
    case = json.loads((tmp_path / "result.json").read_text())
    assert (case["status"], case["cause"]) == ("out of memory", "Tried to allocate 18.00 GiB.")


def test_a_case_that_times_out_fails_the_run() -> None:
    status, (case,) = run("--attentions", "sdpa", "--seconds", "1")
    assert status == 1 and case["status"] == "timed out"


def test_the_cause_of_a_failure_is_the_last_exception_or_the_signal() -> None:
    log = (
        "Traceback (most recent call last):\n  File\nnccl.NcclError: no\n\nTraceback (...)\nRuntimeError: lost\n[W] bye"
    )
    assert cause_of(1, log) == "RuntimeError: lost"
    assert cause_of(1, "[rank0]: Traceback\n[rank0]: ValueError: no room\n") == "ValueError: no room"
    assert cause_of(1, "\x1b[36m(WorkerDict pid=7)\x1b[0m KeyError: 'x'\n") == "KeyError: 'x'"
    assert cause_of(3, "") == "exit status 3"
    assert cause_of(-11, "") == "killed by SIGSEGV"
    assert "main memory" in cause_of(-9, "")
