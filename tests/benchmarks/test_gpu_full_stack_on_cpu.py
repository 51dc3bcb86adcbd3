"""benchmarks/gpu/full_stack.py: every stage composes for its card, failures are recorded, and a stage runs on a CPU."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
from full_stack import HANG_SECONDS

from benchmarks.gpu import full_stack, phase_log
from benchmarks.gpu.full_stack import FAILURES, run_command, run_stages, why_skipped
from benchmarks.gpu.machine import CardMemory
from benchmarks.gpu.phase_figures import ESTIMATED, estimated, summary
from benchmarks.gpu.random_model import write_processor
from benchmarks.gpu.stages import MEGAPIXEL, STAGES, ActorStage, Stage, Variant, image_of, on_cpu, overrides_of
from mmupt.compose import load_recipe
from mmupt.tiny import FOLDER as TINY_MODEL

ROOT = Path(__file__).parents[2]
WHOLE = {name: stage for name, stage in STAGES.items() if isinstance(stage, Stage)}
# Without any change, and with all.
VARIANTS = (Variant(), Variant("on", 16384, "sdpa"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that writes a stage's model without weights, and returns its folder."""
    folders: dict[str, Path] = {}

    def folder_of(stage: Stage) -> Path:
        if stage.model is None:
            return TINY_MODEL
        if stage.model not in folders:
            folders[stage.model] = tmp_path_factory.mktemp("model")
            write_processor(stage.model, folders[stage.model])
        return folders[stage.model]

    return folder_of


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restore the default of Ctrl-C for commands: a shell ignores it in background jobs, and children inherit this."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("name", WHOLE)
def test_every_stage_composes_for_its_card(name: str, variant: Variant, model_folder: Any, tmp_path: Path) -> None:
    stage = WHOLE[name]
    model = model_folder(stage)
    config, _ = load_recipe(stage.recipe, overrides_of(stage, variant, model, tmp_path))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.trainer.device == "cuda" and config.trainer.total_training_steps == stage.steps
    longest = config.data.max_prompt_length + config.data.max_response_length
    assert image_of(stage, model)[0] < config.data.max_prompt_length
    assert longest <= rollout.max_model_len
    assert longest <= actor.ppo_max_token_len_per_gpu
    assert longest <= rollout.log_prob_max_token_len_per_gpu
    if variant.tokens_per_gpu:
        assert actor.ppo_max_token_len_per_gpu == variant.tokens_per_gpu
        assert config.actor_rollout_ref.model.override_config.attn_implementation == variant.attention
        assert config.actor_rollout_ref.model.use_fused_kernels == (variant.fused_kernels == "on")
    estimate = estimated(config, model)
    assert estimate is not None and {phase for phases in ESTIMATED.values() for phase in phases} <= set(estimate)


def test_a_recipe_for_another_data_set_is_run_with_figures(model_folder: Any, tmp_path: Path) -> None:
    stage = replace(WHOLE["3b"], recipe="mmupt_mathvista", overrides=("hardware=gpu_1x80gb",))
    config, _ = load_recipe(stage.recipe, overrides_of(stage, Variant(), model_folder(stage), tmp_path))
    assert list(config.mmupt.datasets) == ["figures"] and config.data.train_batch_size == stage.prompts


@pytest.mark.parametrize(("name", "side"), [("3b", 1008), ("qwen3_vl_4b", 1024)])
def test_an_image_of_one_megapixel_has_the_tokens_of_its_family(name: str, side: int, model_folder: Any) -> None:
    stage = WHOLE[name]
    assert stage.pixels == MEGAPIXEL
    token = {"3b": 28, "qwen3_vl_4b": 32}[name]
    assert image_of(stage, model_folder(stage)) == ((side // token) ** 2, side)


def test_times_are_medians_of_later_steps_and_memory_is_the_peak_of_all() -> None:
    steps = [
        {"gen": {"seconds": seconds, "tokens_per_second": 100 / seconds}, "update_weights": _untimed(1.0)}
        for seconds in (50.0, 4.0, 2.0)
    ]
    notes: list[dict[str, Any]] = [
        {"phase": "gen", "begin": 0.0, "end": 10.0},
        {"phase": "update_actor", "begin": 10.0, "end": 20.0},
        {"phase": "update_actor", "rank": 0, "allocated_gib": 40.0, "reserved_gib": 44.0},
        {"phase": "update_actor", "rank": 1, "allocated_gib": 41.5, "reserved_gib": 43.0},
    ]
    card = CardMemory()
    card.samples = [(1.0, 30.0), (9.0, 35.0), (11.0, 60.0), (21.0, 70.0)]
    estimate = {"generation": 36.0, "weight transfer": 20.0, "update": 50.0, "optimizer step": 55.0}
    phases = summary(steps, notes, card, estimate)
    assert phases["gen"]["seconds"] == 3.0 and phases["gen"]["tokens_per_second"] == 37.5
    assert (phases["gen"]["card_gib"], phases["gen"]["estimate_gib"]) == (35.0, 36.0)
    update = phases["update_actor"]
    assert (update["card_gib"], update["allocated_gib"], update["reserved_gib"]) == (60.0, 41.5, 44.0)
    assert update["estimate_gib"] == 55.0
    assert phases["update_weights"]["tokens_per_second"] is phases["update_weights"]["card_gib"] is None


def _untimed(seconds: float) -> dict[str, float | None]:
    return {"seconds": seconds, "tokens_per_second": None}


def test_the_memory_of_the_fullest_card_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One line per card, in MiB.
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\nwhile true; do echo 1024; echo 2048; sleep 0.1; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    begin = time.time()
    with CardMemory() as card:
        while len(card.samples) < 4:
            time.sleep(0.05)
    assert card.peak([(begin, time.time())]) == 2.0
    assert card.peak([(0.0, begin - 1)]) is None


@pytest.mark.parametrize("is_async", [False, True])
def test_a_rank_logs_its_peak_memory_of_a_phase(
    is_async: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(phase_log.FILE, str(tmp_path / "log"))
    device = MagicMock()
    device.max_memory_allocated.return_value, device.max_memory_reserved.return_value = 3 * 2**30, 2**32

    def update(self: Any) -> str:
        device.reset_peak_memory_stats.assert_called_once()
        return "done"

    async def update_later(self: Any) -> str:
        return update(self)

    method: Any = update_later if is_async else update
    method.marks = "of veRL"
    wrapped = phase_log.with_peaks(method, "update_actor", SimpleNamespace(get_torch_device=lambda: device))
    assert wrapped.marks == "of veRL"
    returned = wrapped(SimpleNamespace(rank=1))
    assert (asyncio.run(returned) if is_async else returned) == "done"
    noted = json.loads((tmp_path / "log").read_text())
    assert noted == {"phase": "update_actor", "rank": 1, "allocated_gib": 3.0, "reserved_gib": 4.0}


@pytest.mark.usefixtures("interruptible")
def test_a_command_that_times_out_leaves_no_process(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    start = time.monotonic()
    assert run_command([sys.executable, "-c", code], tmp_path / "log", 3.0) is None
    assert time.monotonic() - start < 30
    assert not psutil.pid_exists(int(child.read_text()))


@pytest.mark.usefixtures("interruptible")
def test_sigterm_leaves_no_weights_and_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = tmp_path / "begun"
    code = f"import os, time; os.mkdir({str(begun)!r} + str(os.getpid())); time.sleep(60)"

    def end_once_begun() -> None:
        while not [*tmp_path.glob("begun*")]:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    def stage(*_: Any) -> dict[str, Any]:
        threading.Thread(target=end_once_begun).start()
        run_command([sys.executable, "-c", code], tmp_path / "log", None)
        raise AssertionError("SIGTERM did not end the stage")

    monkeypatch.setattr(full_stack, "run_stage", stage)
    output = tmp_path / "gpu" / "result.json"
    monkeypatch.setattr(sys, "argv", ["full_stack.py", "--device", "cpu", "--stages", "tiny", "--output", str(output)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="143"):
            full_stack.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    (started,) = tmp_path.glob("begun*")
    assert not psutil.pid_exists(int(started.name.removeprefix("begun")))
    assert [*output.parent.iterdir()] == []


def test_a_command_that_ends_by_itself_leaves_no_process(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        f"open({str(child)!r}, 'w').write(str(child.pid)); sys.exit(3)"
    )
    assert run_command([sys.executable, "-c", code], tmp_path / "log", None) == 3
    assert not psutil.pid_exists(int(child.read_text()))


@pytest.mark.parametrize(
    ("log", "status", "cause"),
    [
        ("(WorkerDict pid=1) torch.OutOfMemoryError: CUDA out of memory.\nKeyError: 'x'", "out of memory", "CUDA out"),
        ("Traceback\nKeyError: 'x'\nerror: recipe x: there is no key 'y'", "failed", "there is no key"),
        ("Traceback (most recent call last):\nValueError: no room\n", "failed", "ValueError: no room"),
    ],
)
def test_the_cause_of_a_failure_is_in_the_result(log: str, status: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    outcome = full_stack._outcome(1, file, None)
    assert outcome["status"] == status and cause in outcome["cause"]


def test_a_stage_that_does_not_fit_the_budget_is_skipped() -> None:
    assert why_skipped("3b", None, {"3b": 1e9}) is None
    assert why_skipped("3b", 100.0, {}) is None
    assert "needed 200 s" in str(why_skipped("3b", 100.0, {"3b": 200.0}))
    assert why_skipped("3b", 10.0, {}) is not None


def test_a_failed_stage_is_recorded_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> dict[str, Any]:
        raise OSError("no space left")

    monkeypatch.setattr(full_stack, "_run_steps", no_room)
    monkeypatch.setattr(full_stack, "_run_actor", lambda *_: {"actor_step": {"cases": []}})
    output = tmp_path / "gpu" / "result.json"
    run_stages({"bad": WHOLE["3b"], "good": ActorStage("tiny")}, [Variant()], None, output)
    report = json.loads(output.read_text())
    bad, good = report["stages"]
    assert bad["status"] == "failed" and bad["cause"] == "OSError: no space left" and bad["needed_s"] >= 0
    assert good["status"] == "ok"
    run_stages({"bad": WHOLE["3b"], "good": ActorStage("tiny")}, [Variant()], 1.0, output)
    assert [stage["status"] for stage in json.loads(output.read_text())["stages"]] == ["skipped", "skipped"]


@pytest.mark.usefixtures("interruptible")
def test_a_model_folder_is_removed_if_its_weights_time_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    outcome = full_stack.make_model("tiny/qwen3_vl", folder, "cpu", 0.1, tmp_path / "log")
    assert outcome["status"] == "timed out" and not folder.exists()


def test_the_log_of_the_first_stage_has_the_output_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str], log: Path, limit: float | None) -> int:
        commands.append(command)
        log.write_text("KeyError: 'x'")
        return 1

    monkeypatch.setattr(full_stack, "run_command", fail)
    result = full_stack._run_steps(WHOLE["tiny"], Variant(), None, tmp_path, tmp_path / "log")
    assert result["status"] == "failed" and result["cause"] == "KeyError: 'x'"
    # Without --verbose, the output would go to the run folder, which is deleted.
    assert commands[0][1:5] == ["-m", "mmupt", "train", "--verbose"]


def test_a_stage_on_a_cpu_keeps_recipe_and_family() -> None:
    for name, stage in WHOLE.items():
        small = on_cpu(stage)
        assert isinstance(small, Stage) and small.overrides == ("hardware=cpu",)
        assert small.recipe == stage.recipe and (small.model is None) == (stage.model is None), name


@pytest.mark.benchmark
@pytest.mark.full_stack
def test_a_stage_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    script = str(Path(full_stack.__file__))
    command = [sys.executable, script, "--device", "cpu", "--stages", "3b", "--steps", "1", "--output", str(output)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, cwd=ROOT)
    report = json.loads(output.read_text())
    (stage,) = report["stages"]
    assert process.returncode == 0 and stage["status"] == "ok", stage["cause"]
    assert "| 3b " in process.stdout and stage["status"] not in FAILURES
    phases, workload = stage["phases"], stage["workload"]
    timed = {"gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "step"}
    assert all(phases[name]["seconds"] > 0 for name in timed)
    assert (workload["response_tokens"], workload["visual_tokens"]) == (16, 16)
    tokens = 4 * 4 * (workload["prompt_tokens"] + workload["response_tokens"])
    update = phases["update_actor"]
    assert update["tokens_per_second"] == pytest.approx(tokens / update["seconds"], rel=0.01)
    assert 0 < stage["update"]["model_tflops_per_second"]["least"] < stage["update"]["model_tflops_per_second"]["most"]
    assert stage["vllm_against_actor"]["rollout_actor_probs_pearson_corr"] > 0.9999
    # All null on a CPU.
    assert (
        stage["estimate_gib"]
        is update["card_gib"]
        is update["allocated_gib"]
        is stage["update"]["mfu"]["least"]
        is None
    )
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "gpu.md").read_text()))
    assert not {*report, *report["machine"], *stage, *workload, *update, *stage["update"]} - documented
