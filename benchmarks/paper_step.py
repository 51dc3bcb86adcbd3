"""Cost of a step of the paper's size: 512 prompts x 10 responses, images of 1 megapixel, stand-ins for the model.

    .venv/bin/python benchmarks/paper_step.py [--prompts 64 512] [--workers 1 8] [--plain 16] \
        [--replicas 32] [--ranks 2]

Runs `mmupt train` with the batch, limits and update of `base.yaml` and all its processes: agent loop workers, load
balancer, reward workers, transfer queue, replay buffer, trainer, actor and reference ranks. Stand-ins
(`benchmarks/stand_ins.py`) replace vLLM, with made-up responses, and the forward pass of the ranks, which read all its
inputs and return made-up log-probabilities. Each size is a separate run of two steps: the first warms up, the second is
measured.

seconds     of the step and of its phases; generation includes the waiting of the stand-in (`--seconds-per-token`)
CPU         of every kind of process during the step, and per response
peak        peak anonymous and shared memory of a process of the kind during the run, in GiB (each shared page is split
            among the processes that share it)
sent        MB that all processes of the kind send through the transfer queue during the step: rows and features from
            agent loop workers, replies to all reads from the storage
vote        seconds of all votes of the step, and their share of a step of ten minutes

`--plain N` adds a run of plain veRL with N prompts (the changes that `benchmarks/step_cost.py` lists) and one of ours.
`--replicas N` adds two runs with N prompts on two replicas of vLLM itself, with the tiny model, smaller images and
short responses: all responses of a group on one replica, and on any. `--smallest` runs the smallest size, once.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from PIL import Image

from benchmarks.memory_leaks import name_of, sample_process
from benchmarks.observed_command import STEP, observed
from benchmarks.random_groups import encode, photo
from benchmarks.stand_ins import (
    BYTES_FOLDER,
    SECONDS_PER_TOKEN,
    bytes_sent,
    draw_group,
    model_for_large_images,
    model_of_bytes,
    question,
)
from benchmarks.step_cost import PLAIN
from mmupt.compose import as_override
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.metric_names import ENGINE_CORRELATION, RESPONSE_LENGTH, SCORING_SECONDS, TIMING_PREFIX

RESPONSES = 10
SIDE = 1024
STEPS = 2
SECONDS_BETWEEN_SAMPLES = 1.0
SECONDS_OF_A_STEP = 600
METRIC = re.compile(r"(\S+):(-?[\d.]+(?:e[+-]?\d+)?)(?= - |$)")
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "step")
# Pixels per side of an image.
SMALLEST: dict[str, Any] = {"prompts": 4, "responses": 4, "side": 112, "ranks": 1}
# Pixels per side of an image for vLLM itself.
SIDE_FOR_ENGINES = 448
Engines = Literal["stand-ins", "one replica per group", "any replica"]
HOOKS: dict[Engines, str] = {
    "stand-ins": "with_stand_ins",
    "one replica per group": "with_engines",
    "any replica": "with_scattered_groups",
}


@dataclass(frozen=True)
class Size:
    """One run."""

    prompts: int
    workers: int
    responses: int = RESPONSES
    side: int = SIDE
    ranks: int = 2
    plain: bool = False
    seconds_per_token: float = 0.01
    engines: Engines = "stand-ins"

    @property
    def name(self) -> str:
        """What the run is called in tables."""
        kinds = ["plain veRL"] * self.plain + [self.engines] * (self.engines != "stand-ins")
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return ", ".join([*kinds, f"{self.prompts} prompts", workers])


@dataclass
class Usage:
    """Samples of one process: its names, CPU seconds and bytes sent at the end of each step, peak memory in MiB."""

    # Ray calls a process IDLE while it imports what its actor needs, which may take longer than the steps.
    kinds: Counter[str] = field(default_factory=Counter)
    cpu: dict[int, float] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    peak: float = 0.0

    @property
    def kind(self) -> str:
        """The most frequent name of the process other than IDLE."""
        named = Counter({kind: count for kind, count in self.kinds.items() if kind != "IDLE"})
        return (named or self.kinds).most_common(1)[0][0]


class Observer(threading.Thread):
    """Samples the processes of a command until `stop` is called."""

    def __init__(self, root: psutil.Process, bytes_folder: Path) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._bytes_folder = bytes_folder
        self._stopped = threading.Event()
        self.usage: dict[int, Usage] = defaultdict(Usage)

    def run(self) -> None:
        """Record the names and peak memory of all processes."""
        while not self._stopped.wait(SECONDS_BETWEEN_SAMPLES):
            for process in self._processes():
                with suppress(psutil.Error, OSError, IndexError):
                    kind, usage = name_of(process).rsplit(" ", 1)[0], self.usage[process.pid]
                    usage.kinds[kind] += 1
                    usage.peak = max(usage.peak, sample_process(process)["memory_mib"])

    def end_step(self, step: int) -> None:
        """Record the CPU time of all processes and the bytes that they have sent so far."""
        for process in self._processes():
            with suppress(psutil.Error, OSError, IndexError):
                usage, times = self.usage[process.pid], process.cpu_times()
                usage.cpu[step] = times.user + times.system
                usage.sent[step] = bytes_sent(self._bytes_folder, process.pid)

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()
        self.join()

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return [self._root, *self._root.children(recursive=True)]
        return []


def make_rows(folder: Path, size: Size) -> Path:
    """Write a data set with a different image for each prompt."""
    pictures = [photo(seed).resize((size.side, size.side)) for seed in range(8)]

    def rows(first: int, count: int) -> Iterator[Row]:
        for number in range(first, first + count):
            # All images differ: the run would refuse equal ones as leakage.
            shift = (2 * number, 2 * (2 * number // size.side))
            pixels = np.roll(np.asarray(pictures[number % len(pictures)]), shift, axis=(0, 1))
            group = draw_group(number, size.responses)
            right = [text for text, label in zip(group.answers, group.labels, strict=True) if label == 0]
            yield Row(
                id=str(number),
                data_source="made_up",
                question=question(number),
                images=(encode(Image.fromarray(pixels), "JPEG"),),
                question_type="made_up",
                # A group without a correct answer gets a ground truth that matches no response.
                answer=next(iter(right), "none of them"),
                choices=group.choices,
            )

    write_dataset(folder, {"train": rows(0, size.prompts), "validation": rows(size.prompts, 4)}, {})
    return folder


def overrides_of(size: Size, folder: Path, rows: Path, model: Path) -> list[str]:
    """The overrides of the tiny recipe for a step of this size, with the limits of `base.yaml`."""
    files = [str(prompts_path(rows, split)) for split in ("train", "validation")]
    settings: dict[str, Any] = {
        "mmupt.run_folder": str(folder / "run"),
        "mmupt.evaluation_files": None,
        # As on GPUs. Stand-ins also need it: they replace parts of modules as a process imports them.
        "mmupt.fork_workers": False,
        "mmupt.leakage.images": "exact",
        "data.train_files": files[0],
        "data.val_files": files[1],
        "data.train_batch_size": size.prompts,
        "data.max_prompt_length": 2048,
        "data.max_response_length": 2048,
        "data.min_pixels": 262144 if size.side == SIDE else None,
        "data.max_pixels": 1204224,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_mini_batch_size": max(size.prompts // 4, 2),
        "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 16384,
        "actor_rollout_ref.rollout.n": size.responses,
        "actor_rollout_ref.rollout.max_model_len": 4096,
        "actor_rollout_ref.rollout.agent.num_workers": size.workers,
        "reward.num_workers": size.workers,
        "algorithm.rollout_correction.bypass_mode": False,
        "trainer.n_gpus_per_node": size.ranks,
        "trainer.total_training_steps": STEPS,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.logger": ["console"],
        "trainer.v1.sampler.sampler_kwargs.watchdog_seconds": 1800,
        "ray_kwargs.ray_init.num_cpus": 32,
        "ray_kwargs.ray_init.runtime_env.worker_process_setup_hook": f"benchmarks.stand_ins.{HOOKS[size.engines]}",
    }
    if size.engines != "stand-ins":
        settings |= {
            "data.max_prompt_length": 512,
            "data.max_response_length": 32,
            "data.min_pixels": None,
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 4096,
            "actor_rollout_ref.rollout.max_model_len": 1024,
        }
    return [as_override(key, value) for key, value in settings.items()] + list(PLAIN if size.plain else ())


def run(size: Size) -> dict[str, Any]:
    """Run one size and return its figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bytes").mkdir()
        make_model = model_of_bytes if size.engines == "stand-ins" else model_for_large_images
        model, rows = make_model(folder / "model"), make_rows(folder / "rows", size)
        overrides = overrides_of(size, folder, rows, model)
        environment = {
            **os.environ,
            BYTES_FOLDER: str(folder / "bytes"),
            SECONDS_PER_TOKEN: str(size.seconds_per_token),
        }
        lines: list[str] = []
        metrics: dict[str, float] = {}
        with observed(
            [sys.executable, "-m", "mmupt", "train", "mmupt_tiny", "--verbose", *overrides], environment
        ) as command:
            observer = Observer(psutil.Process(command.pid), folder / "bytes")
            observer.start()
            assert command.stdout is not None
            for line in command.stdout:
                lines.append(line.decode(errors="replace").rstrip())
                if match := STEP.search(line):
                    observer.end_step(int(match[1]))
                    metrics = {key: float(value) for key, value in METRIC.findall(lines[-1])}
            status = command.wait()
        observer.stop()
        if status:
            sys.exit("\n".join([*lines[-80:], f"error: {size.name} ended with status {status}; see its output above"]))
        return figures(size, metrics, observer.usage)


def figures(size: Size, metrics: dict[str, float], usage: dict[int, Usage]) -> dict[str, Any]:
    """The figures of a run, from the metrics of its last step and the usage by process id."""
    kinds: dict[str, list[Usage]] = defaultdict(list)
    for process in usage.values():
        if process.kinds:
            kinds[process.kind].append(process)
    responses = size.prompts * size.responses
    last, before = STEPS, STEPS - 1
    processes = {
        kind: {
            "processes": len(members),
            "CPU s": round(sum(member.cpu.get(last, 0.0) - member.cpu.get(before, 0.0) for member in members), 1),
            "peak GiB": round(max(member.peak for member in members) / 1024, 2),
            "sent MB": round(sum(member.sent.get(last, 0) - member.sent.get(before, 0) for member in members) / 1e6, 1),
        }
        for kind, members in kinds.items()
    }
    for values in processes.values():
        values["CPU ms per response"] = round(1000 * values["CPU s"] / responses, 2)
    vote = metrics.get(SCORING_SECONDS)
    return {
        "responses": responses,
        "response tokens": metrics.get(RESPONSE_LENGTH),
        "correlation of engine and actor": metrics.get(ENGINE_CORRELATION),
        "seconds": {
            phase: metrics[f"{TIMING_PREFIX}{phase}"] for phase in PHASES if f"{TIMING_PREFIX}{phase}" in metrics
        },
        "vote s": vote,
        "vote, share of ten minutes": None if vote is None else vote / SECONDS_OF_A_STEP,
        "processes": processes,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the figures as Markdown tables: one for the step, one per measure of the processes."""
    names = list(results)
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for phase in PHASES:
        cells = [str(round(results[name]["seconds"].get(phase, 0.0), 1)) for name in names]
        lines.append(f"| {phase}, s | {' | '.join(cells)} |")
    votes = [results[name]["vote s"] for name in names]
    lines.append(f"| vote, s | {' | '.join('' if vote is None else str(round(vote, 2)) for vote in votes)} |")
    kinds = list(dict.fromkeys(kind for figures in results.values() for kind in figures["processes"]))
    for measure, smallest in (("CPU ms per response", 0.05), ("peak GiB", 0.3), ("sent MB", 1.0)):
        lines += ["", f"| {measure} | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        for kind in kinds:
            values = [results[name]["processes"].get(kind, {}).get(measure, 0) for name in names]
            if max(values) >= smallest:
                lines.append(f"| {kind} | {' | '.join(map(str, values))} |")
    return "\n".join(lines)


def sizes_of(arguments: argparse.Namespace) -> Sequence[Size]:
    """The runs that the command line selects."""
    if arguments.smallest:
        return [Size(workers=1, seconds_per_token=0.0, **SMALLEST)]
    common: dict[str, Any] = {"ranks": arguments.ranks, "seconds_per_token": arguments.seconds_per_token}
    ours = [Size(prompts, workers, **common) for prompts in arguments.prompts for workers in arguments.workers]
    plain = [Size(arguments.plain, 1, plain=plain, **common) for plain in (False, True)] if arguments.plain else []
    replicas: list[Size] = []
    if arguments.replicas:
        kinds: list[Engines] = ["one replica per group", "any replica"]
        replicas = [Size(arguments.replicas, 1, side=SIDE_FOR_ENGINES, engines=kind) for kind in kinds]
    return list(dict.fromkeys([*ours, *plain, *replicas]))


def main() -> None:
    """Run all sizes and print their tables and, as the last line, all figures as JSON."""
    parser = argparse.ArgumentParser(description="Cost of a step of the paper's size, with stand-ins for the model.")
    parser.add_argument("--prompts", type=int, nargs="*", default=[64, 512], help="prompts per step, a run per value")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8], help="agent loop workers and reward workers")
    parser.add_argument("--plain", type=int, help="prompts of an added run of plain veRL, and of one of ours")
    parser.add_argument("--replicas", type=int, help="prompts of two added runs on two replicas of vLLM itself")
    parser.add_argument("--ranks", type=int, default=2, help="actor ranks, each with a replica of the stand-in")
    parser.add_argument("--seconds-per-token", type=float, default=0.01, help="speed of the stand-in for vLLM")
    parser.add_argument("--smallest", action="store_true", help="run the smallest size alone")
    results: dict[str, dict[str, Any]] = {}
    for size in sizes_of(parser.parse_args()):
        start = time.monotonic()
        results[size.name] = run(size)
        seconds = time.monotonic() - start
        print(f"{size.name}: {seconds:.0f} s, {json.dumps(results[size.name])}", file=sys.stderr, flush=True)
    print(table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
