"""The first run on a GPU: time, MFU and memory of whole training steps, with random weights and nothing to download.

    .venv/bin/python benchmarks/gpu/full_stack.py                                   # all stages, in order
    .venv/bin/python benchmarks/gpu/full_stack.py --stages 3b --fused-kernels on off --tokens-per-gpu 4096 16384 24576
    .venv/bin/python benchmarks/gpu/full_stack.py --stages 3b --attentions sdpa flash_attention_2 --budget-s 1200
    .venv/bin/python benchmarks/gpu/full_stack.py --device cpu                      # the same stages, tiny, on a CPU

A stage (`STAGES`) is a training run of its own: vLLM, the vote, actor and reference through `mmupt`, or the actor alone
through `actor_step.py`. Its weights are random, in the shape of a published model (`random_model.py`); its questions
are those about figures, whose images are enlarged. Random weights do not end a response, so that all responses have
the full length (`ignore_eos`). Answers, rewards and accuracies mean nothing here.

`--fused-kernels`, `--tokens-per-gpu` and `--attentions` run every stage once for each combination; what is not given is
as in the recipe. A stage that fails leaves its cause and its log, and the next one goes on. Within `--budget-s` seconds
for all, a stage that no longer fits is skipped: one of which an earlier variant took longer than what is left.

The result is a Markdown table on standard output and, after every stage, a JSON file; docs/gpu.md explains its fields.
The exit status is 1 if a stage failed or ran out of time; out of memory is a result.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf

from benchmarks.gpu import phase_log
from benchmarks.gpu.actor_step import cause_of
from benchmarks.gpu.machine import CardMemory, card_name, commit, machine
from benchmarks.gpu.model_flops import PEAK_FLOPS, flops
from benchmarks.gpu.phase_figures import estimated, phases_of, summary
from benchmarks.gpu.random_model import TINY_PREFIX
from mmupt.compose import as_override
from mmupt.hardware import count_gpus
from mmupt.models import shape_of
from mmupt.reports.tables import markdown_table
from mmupt.tiny import FOLDER as TINY_MODEL
from mmupt_data.figure_task import SIZE

ROOT = Path(__file__).parents[2]
SCHEMA = 1
MEGAPIXEL = 1_003_520
# Text around the image of a prompt: instruction, question and chat template take some 80 of these tokens.
TEXT_TOKENS = 256
ATTENTIONS = ("sdpa", "flash_attention_2")
# Of a stage that did not do what it was to do.
FAILURES = ("failed", "timed out")
# A stage is not started with less than this left.
LEAST_SECONDS = 60.0
# Time that a run has to end by itself when it is told to, before its processes are killed.
GRACE_SECONDS = 20.0
# Marks the processes of a run in their environment.
MARK = "MMUPT_FULL_STACK_RUN"


# Keys of the composed recipe that decide over time and memory.
SETTINGS = (
    "actor_rollout_ref.model.override_config.attn_implementation",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.model.use_fused_kernels",
    "actor_rollout_ref.model.fused_kernel_options.impl_backend",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.use_dynamic_bsz",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.actor.fsdp_config.model_dtype",
    "actor_rollout_ref.actor.fsdp_config.param_offload",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.max_model_len",
    "actor_rollout_ref.rollout.max_num_seqs",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    "actor_rollout_ref.rollout.enforce_eager",
    "actor_rollout_ref.rollout.agent.num_workers",
    "algorithm.rollout_correction.bypass_mode",
    "trainer.n_gpus_per_node",
)


@dataclass(frozen=True)
class Stage:
    """A run of whole steps.

    model: name on Hugging Face of the model whose shape it has; None for the trained tiny model of this repository.
    pixels: least area of an image; None for the figures as they are.
    keeps_policy: whether a checkpoint, its export and the whole launcher are part of the run.
    """

    model: str | None
    recipe: str
    overrides: tuple[str, ...]
    prompts: int
    responses: int
    pixels: int | None
    response_tokens: int
    steps: int
    keeps_policy: bool = False


@dataclass(frozen=True)
class ActorStage:
    """A log-probability pass and an update without vLLM: a shape of `actor_step.py`."""

    shape: str


QWEN2_5_VL_3B, QWEN3_VL_4B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"
# In the order of the first run: what tells most in the shortest time comes first.
STAGES: dict[str, Stage | ActorStage] = {
    # Does it run at all? Training, checkpoint and export of the recipe that the CPU tests run.
    "tiny": Stage(
        None,
        "mmupt_tiny",
        (
            "hardware=gpu_1x80gb",
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
            "actor_rollout_ref.rollout.enforce_eager=True",
        ),
        prompts=32,
        responses=8,
        pixels=None,
        response_tokens=32,
        steps=3,
        keeps_policy=True,
    ),
    "3b": Stage(QWEN2_5_VL_3B, "mmupt_smoke", (), 64, 8, MEGAPIXEL, 512, 3),
    "7b_actor": ActorStage("7b"),
    # All in bf16: 16 bytes a parameter, as fp32 takes, leave no room on 80 GB.
    "qwen3_vl_4b": Stage(
        QWEN3_VL_4B,
        "mmupt_smoke",
        ("model=qwen3_vl_4b", "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16"),
        64,
        8,
        MEGAPIXEL,
        512,
        3,
    ),
}
TINY_SHAPES = {QWEN2_5_VL_3B: f"{TINY_PREFIX}qwen2_5_vl", QWEN3_VL_4B: f"{TINY_PREFIX}qwen3_vl"}


def on_cpu(stage: Stage | ActorStage) -> Stage | ActorStage:
    """Return the stage as two cores run it: the same launcher, code and checks, with tiny shapes and few tokens."""
    if isinstance(stage, ActorStage):
        return ActorStage("tiny")
    small = replace(stage, prompts=4, responses=4, response_tokens=16, steps=min(stage.steps, 2))
    if stage.model is None:
        return replace(small, overrides=("hardware=cpu",))
    return replace(small, model=TINY_SHAPES[stage.model], overrides=("hardware=cpu",), pixels=112 * 112)


@dataclass(frozen=True)
class Variant:
    """What is changed of a recipe; None leaves it as the recipe has it."""

    fused_kernels: str | None = None
    tokens_per_gpu: int | None = None
    attention: str | None = None

    @property
    def name(self) -> str:
        """Its changes, for tables and file names."""
        fused = self.fused_kernels and f"fused_{self.fused_kernels}"
        return "-".join(str(part) for part in (fused, self.tokens_per_gpu, self.attention) if part) or "recipe"

    def overrides(self, with_attention: bool = True) -> list[str]:
        """Return the overrides of a recipe, those of the attention on demand."""
        model, actor = "actor_rollout_ref.model", "actor_rollout_ref.actor"
        found = []
        if self.fused_kernels:
            found.append(f"{model}.use_fused_kernels={self.fused_kernels == 'on'}")
        if self.fused_kernels == "on":
            found.append(f"{model}.fused_kernel_options.impl_backend=torch")
        if self.tokens_per_gpu:
            found.append(f"{actor}.ppo_max_token_len_per_gpu={self.tokens_per_gpu}")
        if self.attention and with_attention:
            found.append(f"{model}.override_config.attn_implementation={self.attention}")
            # Packing without padding needs flash-attn.
            found.append(f"{model}.use_remove_padding={self.attention == 'flash_attention_2'}")
        return found


def overrides_of(stage: Stage, variant: Variant, model: Path, run_folder: Path) -> list[str]:
    """Return the overrides of the recipe for a run of a stage."""
    settings: dict[str, Any] = {
        "mmupt.run_folder": str(run_folder),
        "mmupt.evaluation_files": None,
        "data.train_files": "datasets/figures/train.parquet",
        "data.val_files": "datasets/figures/validation.parquet",
        "data.train_batch_size": stage.prompts,
        "data.max_response_length": stage.response_tokens,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_mini_batch_size": stage.prompts,
        "actor_rollout_ref.rollout.n": stage.responses,
        "actor_rollout_ref.rollout.ignore_eos": True,
        "trainer.total_training_steps": stage.steps,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": stage.steps,
        "trainer.logger": ["console", "file"],
    }
    if stage.pixels is not None:
        longest_prompt = image_of(stage, model)[0] + TEXT_TOKENS
        settings |= {
            "data.bad_rows": "stop",
            "data.min_pixels": stage.pixels,
            "data.max_pixels": 2 * stage.pixels,
            "data.max_prompt_length": longest_prompt,
            "actor_rollout_ref.rollout.max_model_len": longest_prompt + stage.response_tokens,
        }
    variables = {"VERL_USE_EXTERNAL_MODULES": phase_log.__name__, phase_log.FILE: str(run_folder / "phases.jsonl")}
    added = [f"+ray_kwargs.ray_init.runtime_env.env_vars.{as_override(*item)}" for item in variables.items()]
    changes = [as_override(key, value) for key, value in settings.items()]
    return ["dataset=figures", *stage.overrides, *changes, *variant.overrides(), *added]


def image_of(stage: Stage, model: Path) -> tuple[int, int]:
    """Return the visual tokens of an image of a stage, and its side in px as the model sees it: figures are squares."""
    from transformers import AutoProcessor

    from verl_ext.datasets.pixel_limits import set_limits, token_side, visual_tokens

    processor = AutoProcessor.from_pretrained(model).image_processor
    tokens = visual_tokens(SIZE, SIZE, processor, set_limits(stage.pixels, stage.pixels and 2 * stage.pixels))
    assert tokens is not None, "a square is never refused"
    return tokens, math.isqrt(tokens) * token_side(processor)


def train(recipe: str, overrides: list[str]) -> None:
    """Train a recipe as `mmupt train` does, without a checkpoint and an export, which a large model waits long for."""
    from mmupt.compose import refuse
    from mmupt.runtime.preflight import problems_of_rows
    from mmupt.training.memory_estimate import report
    from mmupt.training.recipe_run import prepare_run, run_trainer
    from mmupt.training.row_checks import check_rows, dropped_rows

    config = prepare_run(recipe, overrides)
    if config.mmupt.baseline.method is not None:
        sys.exit(f"error: {recipe} trains by {config.mmupt.baseline.method}, which has no steps to measure")
    run_folder = Path(config.mmupt.run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    config.trainer.save_freq = -1
    OmegaConf.save(config, run_folder / "config.yaml")
    check_rows(config)
    refuse(problems_of_rows(config, dropped_rows(config)))
    if config.trainer.device == "cuda":
        print(report(config), flush=True)
    run_trainer(config)


def run_command(command: Sequence[str], log: Path, limit: float | None) -> int | None:
    """Run a command with its output in `log`; return its exit status, None if it was ended after `limit` seconds.

    No process that it started survives, whatever way it ends.
    """
    mark = uuid.uuid4().hex
    with log.open("w") as output:
        process = psutil.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, MARK: mark},
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except psutil.TimeoutExpired:
            return None
        finally:
            _end(process, mark)


def _end(process: psutil.Popen, mark: str) -> None:
    """End a command and all that it started: first by Ctrl-C, upon which Ray ends its own."""
    started = set()
    if process.is_running():
        started = {process, *process.children(recursive=True)}
        process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    for other in psutil.process_iter():
        with suppress(psutil.Error):
            if other.environ().get(MARK) == mark:
                started.add(other)
    for other in started:
        with suppress(psutil.Error):
            other.kill()
    psutil.wait_procs(started, timeout=GRACE_SECONDS)


def run_stage(
    name: str, stage: Stage | ActorStage, variant: Variant, limit: float | None, models: Path, logs: Path
) -> dict[str, Any]:
    """Run a stage and return its part of the result."""
    result: dict[str, Any] = {"stage": name, "variant": variant.name, "status": "ok", "cause": None}
    log = logs / f"{name}-{variant.name}.log"
    start = time.monotonic()
    if variant.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        return result | {"status": "not installed", "cause": "flash-attn is not installed", "needed_s": 0.0}
    result["log"] = str(log)
    try:
        run = _run_actor if isinstance(stage, ActorStage) else _run_steps
        result |= run(stage, variant, limit, models, log)
    # Whatever it is, the next stage goes on.
    except Exception as error:
        traceback.print_exc()
        result |= {"status": "failed", "cause": f"{type(error).__name__}: {error}"}
    return result | {"needed_s": round(time.monotonic() - start, 1)}


def _outcome(status: int | None, log: Path, limit: float | None) -> dict[str, Any]:
    """Return status and cause of a run that ended with an exit status, or with None after its time was up."""
    if status is None:
        return {"status": "timed out", "cause": f"not finished after {limit:.0f} s"}
    if status == 0:
        return {}
    text = log.read_text(errors="replace")
    if found := re.search(r".*OutOfMemoryError.*", text):
        return {"status": "out of memory", "cause": found[0].strip()[:500]}
    if refused := re.findall(r"^error: .*", text, re.MULTILINE):
        return {"status": "failed", "cause": refused[-1][:500]}
    return {"status": "failed", "cause": cause_of(status, text)[:500]}


def _run_actor(stage: ActorStage, variant: Variant, limit: float | None, models: Path, log: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("actor_step.py")
    command = [sys.executable, str(script), "--shapes", stage.shape]
    command += ["--attentions", *([variant.attention] if variant.attention else ATTENTIONS)]
    if limit is not None:
        command += ["--seconds", str(max(1.0, limit - GRACE_SECONDS))]
    command += ["--overrides", *variant.overrides(with_attention=False)]
    outcome = _outcome(run_command(command, log, limit), log, limit)
    result = {"command": shlex.join(command), **outcome}
    text = log.read_text(errors="replace")
    # The result is the one JSON that begins with a line of its own.
    if found := re.search(r"^\{$", text, re.MULTILINE):
        result["actor_step"], _ = json.JSONDecoder().raw_decode(text[found.start() :])
        bad = [case for case in result["actor_step"]["cases"] if case["status"] in (*FAILURES, "out of memory")]
        if bad:
            result |= {"status": bad[0]["status"], "cause": bad[0]["cause"]}
    return result


def _run_steps(stage: Stage, variant: Variant, limit: float | None, models: Path, log: Path) -> dict[str, Any]:
    device = "cpu" if "hardware=cpu" in stage.overrides else "cuda"
    begin = time.monotonic()
    model = TINY_MODEL
    if stage.model is not None:
        model = models / stage.model
        if not model.is_dir() and (failure := make_model(stage.model, model, device, limit, log)):
            return failure
    making = time.monotonic() - begin
    with tempfile.TemporaryDirectory(prefix="run_", dir=log.parent) as name, CardMemory() as card:
        run_folder = Path(name)
        overrides = overrides_of(stage, variant, model, run_folder)
        # --verbose: without it, the output of all processes goes to a log in the run folder, which does not stay.
        launcher = ["-m", "mmupt", "train", "--verbose"] if stage.keeps_policy else [__file__, "--train"]
        command = [sys.executable, *launcher, stage.recipe, *overrides]
        launched = time.time()
        left = None if limit is None else max(1.0, limit - making)
        outcome = _outcome(run_command(command, log, left), log, limit)
        result = {"command": shlex.join(command), "model_s": round(making, 1), **outcome}
        return result | figures(stage, model, run_folder, card, launched)


def make_model(name: str, folder: Path, device: str, limit: float | None, log: Path) -> dict[str, Any]:
    """Make the random weights of a stage; return status and cause if that fails, and nothing else.

    In a process of its own: this one would keep the memory of the card in which they were drawn.
    """
    script = Path(__file__).with_name("random_model.py")
    command = [sys.executable, str(script), name, str(folder), "--device", device]
    outcome = _outcome(run_command(command, log, limit), log, limit)
    if outcome:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def figures(stage: Stage, model: Path, run_folder: Path, card: CardMemory, launched: float) -> dict[str, Any]:
    """Return what a run has left: all of it, or as much as it had done when it failed."""
    config_file = run_folder / "config.yaml"
    if not config_file.is_file():
        return {}
    config = OmegaConf.load(config_file)
    assert isinstance(config, DictConfig)
    notes = _read_lines(run_folder / "phases.jsonl")
    # veRL's file logger has one file, in a folder named by the project.
    files = (run_folder / config.trainer.project_name).glob("*.jsonl")
    metrics = [line["data"] for file in files for line in _read_lines(file)]
    settings = {key: OmegaConf.select(config, key) for key in SETTINGS}
    result: dict[str, Any] = {"settings": settings, "estimate_gib": estimated(config, model)}
    begins = [note["begin"] for note in notes if note.get("phase") == "step"]
    result["start_s"] = round(min(begins) - launched, 1) if begins else None
    result["steps"] = [phases_of(one) for one in metrics]
    result["phases"] = summary(result["steps"], notes, card, result["estimate_gib"])
    if metrics:
        last = metrics[-1]
        result["workload"] = workload(stage, model, last)
        result["update"] = update_rate(stage, model, last, result["phases"]["update_actor"]["seconds"], config)
        keys = ("training/rollout_actor_probs_pearson_corr", "training/rollout_probs_diff_mean")
        result["vllm_against_actor"] = {key.removeprefix("training/"): last.get(key) for key in keys}
    return result


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, without a last one that was cut off; none where there is no file."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def workload(stage: Stage, model: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step consists of."""
    shape = shape_of(str(model))
    tokens, side = image_of(stage, model)
    return {
        "model": stage.model or "tiny",
        "parameters": None if shape is None else shape.parameters,
        "recipe": stage.recipe,
        "prompts": stage.prompts,
        "responses_per_prompt": stage.responses,
        "image_px": [side, side],
        "visual_tokens": tokens,
        "prompt_tokens": metrics["prompt_length/mean"],
        "response_tokens": metrics["response_length/mean"],
    }


def update_rate(
    stage: Stage, model: Path, metrics: Mapping[str, Any], seconds: float, config: DictConfig
) -> dict[str, Any]:
    """Return model FLOP/s a card and MFU of an update, on its wall-clock time.

    Responses to one prompt share the work on its image where they are in one micro-batch, and how many do depends on
    the batch: `least` counts every image once for its prompt, `most` once for every response.
    """
    from transformers import AutoConfig

    hf_config = AutoConfig.from_pretrained(model)
    patches = image_of(stage, model)[1] // hf_config.vision_config.patch_size
    length = round(metrics["prompt_length/mean"] + metrics["response_length/mean"])
    one = flops(hf_config, length, patches, patches)
    cards = config.trainer.n_gpus_per_node * config.trainer.nnodes
    sequences = stage.prompts * stage.responses
    rates = {
        "least": (sequences * one.update_language + stage.prompts * one.update_vision) / seconds / cards,
        "most": sequences * one.update / seconds / cards,
    }
    peak = PEAK_FLOPS.get(card_name() or "")
    # 0 is what veRL logs for a card or a model that it does not know, and its peak for a CPU is a guess.
    verl = metrics.get("perf/mfu/actor") if config.trainer.device == "cuda" else None
    return {
        "model_tflops_per_second": {name: round(rate / 1e12, 6) for name, rate in rates.items()},
        "mfu": {name: None if peak is None else round(rate / peak, 4) for name, rate in rates.items()},
        "mfu_of_verl": verl or None,
    }


def why_skipped(name: str, left: float | None, needed: Mapping[str, float]) -> str | None:
    """Return why a stage is not started with so many seconds left, if it is not."""
    if left is None:
        return None
    if name in needed and left < needed[name]:
        return f"{left:.0f} s of the budget are left, and an earlier variant needed {needed[name]:.0f} s"
    return f"{left:.0f} s of the budget are left" if left < LEAST_SECONDS else None


def run_stages(
    stages: Mapping[str, Stage | ActorStage], variants: Sequence[Variant], budget: float | None, output: Path
) -> list[dict[str, Any]]:
    """Run every stage in every variant, write the result after each, and return all of them."""
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([sys.executable, *sys.argv]),
        "commit": commit(),
        "machine": machine(),
        "budget_s": budget,
        "stages": [],
    }
    end = None if budget is None else time.monotonic() + budget
    needed: dict[str, float] = {}
    # The launcher runs in the root of the checkout.
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="models_", dir=output.parent) as models:
        for (name, stage), variant in product(stages.items(), variants):
            left = None if end is None else end - time.monotonic()
            if reason := why_skipped(name, left, needed):
                result = {"stage": name, "variant": variant.name, "status": "skipped", "cause": reason, "needed_s": 0.0}
            else:
                print(f"{name} ({variant.name}) ...", file=sys.stderr, flush=True)
                result = run_stage(name, stage, variant, left, Path(models), output.parent)
            if result["status"] == "ok":
                needed[name] = max(needed.get(name, 0.0), result["needed_s"])
            report["stages"].append(result)
            output.write_text(json.dumps(report, indent=2) + "\n")
            cause = f": {result['cause']}" if result["cause"] else ""
            print(f"{name} ({variant.name}): {result['status']}{cause}", file=sys.stderr, flush=True)
    return report["stages"]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the phases of all stages as a table in Markdown; a stage without any has its status there."""
    head = ("stage", "variant", "phase", "seconds", "tokens/s", "MFU", "GiB: card", "allocated", "estimate")
    rows: list[tuple[str, ...]] = [head]
    for result in results:
        stage, variant = result["stage"], result["variant"]
        if result["status"] != "ok":
            rows.append((stage, variant, result["status"], *[""] * 6))
        for phase, one in (result.get("phases") or {}).items():
            mfu = result["update"]["mfu"]["least"] if phase == "update_actor" and "update" in result else None
            memory = (one["card_gib"], one["allocated_gib"], one["estimate_gib"])
            rows.append((stage, variant, phase, *map(_cell, (one["seconds"], one["tokens_per_second"], mfu, *memory))))
        for case in (result.get("actor_step") or {}).get("cases", ()):
            for phase in ("log_prob", "update"):
                if one := case.get(phase):
                    cells = map(_cell, (one["seconds"], one["tokens_per_second"], one["mfu"]))
                    memory_cells = ("", _cell(one["peak_memory_gib"]), "")
                    rows.append((stage, variant, f"{phase}, {case['attention']}", *cells, *memory_cells))
    return markdown_table(rows)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def main() -> None:
    """Run the stages of the command line; exit with 1 if one failed or timed out."""
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3:])
        return
    # Unwinds, so that a run which is told to end takes its processes and weights with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description="Time, MFU and memory of whole training steps with random weights.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu runs all stages in tiny shapes")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="in the order given")
    parser.add_argument("--fused-kernels", nargs="+", choices=("on", "off"), default=[None])
    parser.add_argument("--tokens-per-gpu", nargs="+", type=int, default=[None], help="tokens of a micro-batch")
    parser.add_argument("--attentions", nargs="+", choices=ATTENTIONS, default=[None])
    parser.add_argument("--recipe", help="of all stages with whole steps but tiny, in place of theirs")
    for name in ("prompts", "responses", "pixels", "response-tokens", "steps"):
        parser.add_argument(f"--{name}", type=int, help="of all stages with whole steps, in place of theirs")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="further changes of the recipe")
    parser.add_argument("--budget-s", type=float, help="seconds for all stages; what no longer fits is skipped")
    parser.add_argument("--output", type=Path, help="JSON file, beside which logs go (runs/gpu/TIME/result.json)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not count_gpus():
        parser.error("no GPU answered: --device cpu runs without one")
    names = ("prompts", "responses", "pixels", "response_tokens", "steps")
    sizes = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    stages: dict[str, Stage | ActorStage] = {}
    for name in arguments.stages:
        stage = STAGES[name] if arguments.device == "cuda" else on_cpu(STAGES[name])
        if isinstance(stage, Stage):
            recipe = arguments.recipe if arguments.recipe and stage.model is not None else stage.recipe
            overrides = (*stage.overrides, *arguments.overrides)
            stage = replace(stage, recipe=recipe, overrides=overrides, **sizes)
        stages[name] = stage
    variants = [
        Variant(*values) for values in product(arguments.fused_kernels, arguments.tokens_per_gpu, arguments.attentions)
    ]
    output = arguments.output or ROOT / "runs" / "gpu" / time.strftime("%Y-%m-%dT%H-%M-%S") / "result.json"
    results = run_stages(stages, variants, arguments.budget_s, output)
    print(table(results))
    print(f"The result is in {output}")
    if any(result["status"] in FAILURES for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
