"""One step of the paper's size, 512 prompts x 10 responses with images of 1 megapixel, with a stand-in for the model.

    .venv/bin/python benchmarks/paper_step.py [--prompts 64 512] [--workers 1 8] [--plain 16] \
        [--replicas 32] [--ranks 2]

The run is `mmupt train` with the batch, limits and update of `base.yaml`: its rows, agent loop
workers, load balancer, reward workers, transfer queue, replay buffer, trainer, actor and reference ranks, checkpoint.
Stand-ins (`benchmarks/stand_ins.py`) are vLLM, which answers with made-up responses, and the forward pass of the ranks,
which read all that it would take and return made-up log-probabilities. Each size is a run of its own, of two steps; the
first warms up, and the figures are of the second.

seconds     of the step and of its phases; those of generation hold the stand-in's waiting (`--seconds-per-token`)
CPU         of every kind of process during the step, and per response
peak        the most anonymous and shared memory that one process of the kind has at any moment of the run, in GiB, each
            shared page split among those who share it
sent        what the processes of a kind send through the transfer queue during the step: rows and features from agent
            loop workers, answers to all reads from the storage
vote        seconds of all votes of the step, and their share of a step of ten minutes

`--plain` adds a run of plain veRL of so many prompts, by the changes that `benchmarks/step_cost.py` lists, and one of
ours beside it. `--replicas` adds two runs of so many prompts with vLLM itself, the tiny model, smaller images and short
responses on two replicas: the responses of a group on one of them, and on any. `--smallest` is the smallest run with
stand-ins.
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
from verl_ext.metric_names import RESPONSE_LENGTH, SCORING_SECONDS

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
    """What was seen of one process: what it is, CPU seconds and bytes sent at the end of each step, peak MiB."""

    # A process of Ray is called IDLE while it imports what its actor needs, which may be longer than the steps.
    kinds: Counter[str] = field(default_factory=Counter)
    cpu: dict[int, float] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    peak: float = 0.0

    @property
    def kind(self) -> str:
        """The name that the process had most of the time, of those that say what it is."""
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
        """Note the memory of all processes."""
        while not self._stopped.wait(SECONDS_BETWEEN_SAMPLES):
            for process in self._processes():
                with suppress(psutil.Error, OSError, IndexError):
                    kind, usage = name_of(process).rsplit(" ", 1)[0], self.usage[process.pid]
                    usage.kinds[kind] += 1
                    usage.peak = max(usage.peak, sample_process(process)["memory_mib"])

    def end_step(self, step: int) -> None:
        """Note the CPU time of all processes and what they have sent."""
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
    """Write a data set with one image of its own for each prompt."""
    pictures = [photo(seed).resize((size.side, size.side)) for seed in range(8)]

    def rows(first: int, count: int) -> Iterator[Row]:
        for number in range(first, first + count):
            # No two rows have the same image, however many there are: the run would refuse them as leakage.
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
                # Any text is a ground truth that no response gives.
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
        # As on GPUs; stand-ins are put in place while a process imports what they replace.
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
                if found := STEP.search(line):
                    observer.end_step(int(found[1]))
                    metrics = {key: float(value) for key, value in METRIC.findall(lines[-1])}
            status = command.wait()
        observer.stop()
        if status:
            sys.exit("\n".join([*lines[-80:], f"error: {size.name} ended with status {status}"]))
        return figures(size, metrics, observer.usage)


def figures(size: Size, metrics: dict[str, float], usage: dict[int, Usage]) -> dict[str, Any]:
    """The figures of a run from the metrics of its last step and what was seen of its processes."""
    kinds: dict[str, list[Usage]] = defaultdict(list)
    for one in usage.values():
        if one.kinds:
            kinds[one.kind].append(one)
    responses = size.prompts * size.responses
    processes = {
        kind: {
            "processes": len(seen),
            "CPU s": round(sum(one.cpu.get(STEPS, 0.0) - one.cpu.get(STEPS - 1, 0.0) for one in seen), 1),
            "peak GiB": round(max(one.peak for one in seen) / 1024, 2),
            "sent MB": round(sum(one.sent.get(STEPS, 0) - one.sent.get(STEPS - 1, 0) for one in seen) / 1e6, 1),
        }
        for kind, seen in kinds.items()
    }
    for of_kind in processes.values():
        of_kind["CPU ms per response"] = round(1000 * of_kind["CPU s"] / responses, 2)
    vote = metrics.get(SCORING_SECONDS)
    return {
        "responses": responses,
        "response tokens": metrics.get(RESPONSE_LENGTH),
        "correlation of engine and actor": metrics.get("training/rollout_actor_probs_pearson_corr"),
        "seconds": {phase: metrics[f"timing_s/{phase}"] for phase in PHASES if f"timing_s/{phase}" in metrics},
        "vote s": vote,
        "vote, share of ten minutes": None if vote is None else vote / SECONDS_OF_A_STEP,
        "processes": processes,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures as tables in Markdown: one of the steps, one per measure of the processes."""
    names = list(results)
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for phase in PHASES:
        cells = [str(round(results[name]["seconds"].get(phase, 0.0), 1)) for name in names]
        lines.append(f"| {phase}, s | {' | '.join(cells)} |")
    votes = [results[name]["vote s"] for name in names]
    lines.append(f"| vote, s | {' | '.join('' if vote is None else str(round(vote, 2)) for vote in votes)} |")
    kinds = list(dict.fromkeys(kind for one in results.values() for kind in one["processes"]))
    for measure, smallest in (("CPU ms per response", 0.05), ("peak GiB", 0.3), ("sent MB", 1.0)):
        lines += ["", f"| {measure} | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        for kind in kinds:
            values = [results[name]["processes"].get(kind, {}).get(measure, 0) for name in names]
            if max(values) >= smallest:
                lines.append(f"| {kind} | {' | '.join(map(str, values))} |")
    return "\n".join(lines)


def sizes_of(arguments: argparse.Namespace) -> Sequence[Size]:
    """The runs that the command line asks for."""
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
    parser = argparse.ArgumentParser(description="A step of the paper's size with a stand-in for the model.")
    parser.add_argument("--prompts", type=int, nargs="*", default=[64, 512], help="prompts of a step")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8], help="agent loop and reward workers, each")
    parser.add_argument("--plain", type=int, help="prompts of a run of plain veRL, and of one of ours beside it")
    parser.add_argument("--replicas", type=int, help="prompts of two runs with vLLM itself, on two replicas")
    parser.add_argument("--ranks", type=int, default=2, help="of the actor, each with a replica of the stand-in")
    parser.add_argument("--seconds-per-token", type=float, default=0.01, help="of the stand-in for vLLM")
    parser.add_argument("--smallest", action="store_true", help="run the smallest size of all parts, once")
    results: dict[str, dict[str, Any]] = {}
    for size in sizes_of(parser.parse_args()):
        start = time.monotonic()
        results[size.name] = run(size)
        figures_of_size = json.dumps(results[size.name])
        print(f"{size.name}: {time.monotonic() - start:.0f} s, {figures_of_size}", file=sys.stderr, flush=True)
    print(table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
