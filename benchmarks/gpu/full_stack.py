"""First run on a GPU: time, MFU and memory of whole training steps with random weights; downloads nothing.

    .venv/bin/python benchmarks/gpu/full_stack.py                                   # all stages, in order
    .venv/bin/python benchmarks/gpu/full_stack.py --stages 3b --fused-kernels on off --tokens-per-gpu 4096 16384 24576
    .venv/bin/python benchmarks/gpu/full_stack.py --stages 3b --attentions sdpa flash_attention_2 --budget-s 1200
    .venv/bin/python benchmarks/gpu/full_stack.py --device cpu                      # the same stages, tiny, on a CPU

A stage (`stages.py`) is a separate training run: vLLM, vote, actor and reference through `mmupt`, or the actor alone
through `actor_step.py`. Weights are random, in the shape of a published model (`random_model.py`); questions are those
of the figures data set, with enlarged images. All responses have the full length (`ignore_eos`). Answers, rewards and
accuracies mean nothing here.

`--fused-kernels`, `--tokens-per-gpu` and `--attentions` run every stage once per combination; the recipe decides
options that are not given. If a stage fails, its cause and log are kept and the next stage runs. `--budget-s` limits
all stages together; a stage is skipped if an earlier variant of it took longer than the time left.

Prints a Markdown table, and writes a JSON file after every stage; docs/gpu.md explains its fields. The exit status is 1
if a stage fails or times out; out of memory is a result.
"""

import argparse
import importlib.util
import json
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from omegaconf import OmegaConf

from benchmarks.gpu.actor_step import cause_of
from benchmarks.gpu.machine import CardMemory, commit, machine
from benchmarks.gpu.stage_figures import figures
from benchmarks.gpu.stages import STAGES, ActorStage, Stage, Variant, on_cpu, overrides_of
from mmupt.hardware import count_gpus
from mmupt.reports.tables import markdown_table
from mmupt.tiny import FOLDER as TINY_MODEL

ROOT = Path(__file__).parents[2]

SCHEMA = 1

ATTENTIONS = ("sdpa", "flash_attention_2")

# Statuses for which this program exits with 1.
FAILURES = ("failed", "timed out")

# No stage starts with less time left.
MIN_SECONDS = 60.0

# Seconds between Ctrl-C and the killing of a run's processes.
GRACE_SECONDS = 20.0

# Environment variable that marks the processes of a run.
MARK = "MMUPT_FULL_STACK_RUN"


def train(recipe: str, overrides: list[str]) -> None:
    """Train a recipe like `mmupt train`, without checkpoint and export, which take long for a large model."""
    from mmupt.compose import refuse
    from mmupt.runtime.preflight import problems_of_rows
    from mmupt.training.memory_estimate import report
    from mmupt.training.recipe_run import prepare_run, run_trainer
    from mmupt.training.row_checks import check_rows, dropped_rows

    config = prepare_run(recipe, overrides)
    if config.mmupt.baseline.method is not None:
        sys.exit(f"error: recipe {recipe} uses {config.mmupt.baseline.method}, which has no GRPO steps; choose another")
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
    """Run a command with its output in `log`; return its exit status, or None if it was ended after `limit` seconds.

    No process that it started survives, however it ends.
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
    """End a command and all its processes: first with Ctrl-C, on which Ray ends its own processes."""
    started = set()
    if process.is_running():
        started = {process, *process.children(recursive=True)}
        process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    for candidate in psutil.process_iter():
        with suppress(psutil.Error):
            if candidate.environ().get(MARK) == mark:
                started.add(candidate)
    for member in started:
        with suppress(psutil.Error):
            member.kill()
    psutil.wait_procs(started, timeout=GRACE_SECONDS)


def run_stage(
    name: str, stage: Stage | ActorStage, variant: Variant, limit: float | None, models: Path, logs: Path
) -> dict[str, Any]:
    """Run a stage; return its entry in the result file."""
    result: dict[str, Any] = {"stage": name, "variant": variant.name, "status": "ok", "cause": None}
    log = logs / f"{name}-{variant.name}.log"
    start = time.monotonic()
    if variant.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        return result | {"status": "not installed", "cause": "flash-attn is not installed", "needed_s": 0.0}
    result["log"] = str(log)
    try:
        run: Callable[..., dict[str, Any]] = _run_actor if isinstance(stage, ActorStage) else _run_steps
        result |= run(stage, variant, limit, models, log)
    # Any error ends this stage alone.
    except Exception as error:
        traceback.print_exc()
        result |= {"status": "failed", "cause": f"{type(error).__name__}: {error}"}
    return result | {"needed_s": round(time.monotonic() - start, 1)}


def _outcome(status: int | None, log: Path, limit: float | None) -> dict[str, Any]:
    """Return status and cause of a run, {} if it succeeded; the exit status None means that it timed out."""
    if status is None:
        return {"status": "timed out", "cause": f"not finished after {limit:.0f} s"}
    if status == 0:
        return {}
    text = log.read_text(errors="replace")
    if match := re.search(r".*OutOfMemoryError.*", text):
        return {"status": "out of memory", "cause": match[0].strip()[:500]}
    if errors := re.findall(r"^error: .*", text, re.MULTILINE):
        return {"status": "failed", "cause": errors[-1][:500]}
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
    # The result is the only JSON whose opening brace is alone on its line.
    if match := re.search(r"^\{$", text, re.MULTILINE):
        result["actor_step"], _ = json.JSONDecoder().raw_decode(text[match.start() :])
        failed = [case for case in result["actor_step"]["cases"] if case["status"] in (*FAILURES, "out of memory")]
        if failed:
            result |= {"status": failed[0]["status"], "cause": failed[0]["cause"]}
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
        # Without --verbose, the output of all processes goes to a log in the run folder, which is deleted.
        launcher = ["-m", "mmupt", "train", "--verbose"] if stage.keeps_policy else [__file__, "--train"]
        command = [sys.executable, *launcher, stage.recipe, *overrides]
        launched = time.time()
        left = None if limit is None else max(1.0, limit - making)
        outcome = _outcome(run_command(command, log, left), log, limit)
        result = {"command": shlex.join(command), "model_s": round(making, 1), **outcome}
        return result | figures(stage, model, run_folder, card, launched)


def make_model(name: str, folder: Path, device: str, limit: float | None, log: Path) -> dict[str, Any]:
    """Write a model with random weights; return status and cause if that fails, else {}.

    Runs in a new process, because this one would keep the card's memory in which the weights are drawn.
    """
    script = Path(__file__).with_name("random_model.py")
    command = [sys.executable, str(script), name, str(folder), "--device", device]
    outcome = _outcome(run_command(command, log, limit), log, limit)
    if outcome:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def why_skipped(name: str, left: float | None, needed: Mapping[str, float]) -> str | None:
    """Return why a stage is skipped with `left` seconds to go, or None if it is not.

    `needed` has the longest time of each stage's earlier variants in seconds.
    """
    if left is None:
        return None
    if name in needed and left < needed[name]:
        return f"{left:.0f} s of the budget are left, and an earlier variant needed {needed[name]:.0f} s"
    return f"{left:.0f} s of the budget are left" if left < MIN_SECONDS else None


def run_stages(
    stages: Mapping[str, Stage | ActorStage], variants: Sequence[Variant], budget: float | None, output: Path
) -> list[dict[str, Any]]:
    """Run every stage in every variant, rewrite the result file after each, and return all results."""
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
    # Stages run in the root of the checkout, not in this process's working directory.
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="models_", dir=output.parent) as models:
        for (name, stage), variant in product(stages.items(), variants):
            left = None if end is None else end - time.monotonic()
            result: dict[str, Any]
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
    """Format the phases of all stages as a Markdown table; a stage that is not ok has a row with its status."""
    head = ("stage", "variant", "phase", "seconds", "tokens/s", "MFU", "GiB: card", "allocated", "estimate")
    rows: list[tuple[str, ...]] = [head]
    for result in results:
        stage, variant = result["stage"], result["variant"]
        if result["status"] != "ok":
            rows.append((stage, variant, result["status"], *[""] * 6))
        for phase, values in (result.get("phases") or {}).items():
            mfu = result["update"]["mfu"]["least"] if phase == "update_actor" and "update" in result else None
            memory = (values["card_gib"], values["allocated_gib"], values["estimate_gib"])
            cells = map(_cell, (values["seconds"], values["tokens_per_second"], mfu, *memory))
            rows.append((stage, variant, phase, *cells))
        for case in (result.get("actor_step") or {}).get("cases", ()):
            for phase in ("log_prob", "update"):
                if values := case.get(phase):
                    cells = map(_cell, (values["seconds"], values["tokens_per_second"], values["mfu"]))
                    memory_cells = ("", _cell(values["peak_memory_gib"]), "")
                    rows.append((stage, variant, f"{phase}, {case['attention']}", *cells, *memory_cells))
    return markdown_table(rows)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def main() -> None:
    """Run the given stages; exit with 1 if one fails or times out."""
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3:])
        return
    # SystemExit runs the cleanup of processes and weights, which the default handler would skip.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description="Time, MFU and memory of whole training steps with random weights.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu runs all stages in tiny shapes")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="in this order (default: all)"
    )
    parser.add_argument("--fused-kernels", nargs="+", choices=("on", "off"), default=[None], help="a variant per value")
    parser.add_argument(
        "--tokens-per-gpu", nargs="+", type=int, default=[None], help="tokens per micro-batch, likewise"
    )
    parser.add_argument("--attentions", nargs="+", choices=ATTENTIONS, default=[None], help="likewise")
    parser.add_argument("--recipe", help="replaces the recipe of all stages with whole steps except tiny")
    for name in ("prompts", "responses", "pixels", "response-tokens", "steps"):
        parser.add_argument(f"--{name}", type=int, help="replaces the value of all stages with whole steps")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="further recipe overrides")
    parser.add_argument("--budget-s", type=float, help="limit for all stages together in seconds")
    parser.add_argument("--output", type=Path, help="JSON file; logs go to its folder (runs/gpu/TIME/result.json)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not count_gpus():
        parser.error("found no GPU; use --device cpu to run on a CPU")
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
    print(f"Results: {output}")
    if any(result["status"] in FAILURES for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
