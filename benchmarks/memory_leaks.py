"""Run a training command and report which of its processes leak memory, open files, threads or shared memory.

    .venv/bin/python benchmarks/memory_leaks.py -- \
        make train ARGS="--verbose trainer.total_training_steps=200 trainer.test_freq=-1"

Samples every process of the command's tree whenever veRL's console logger prints the metrics of a step; these go to the
console only with --verbose. Memory is anonymous and shared memory, where each shared page is split among the processes
that share it. File pages, such as libraries, are left out, because their share depends on unrelated programs. Every
segment in /dev/shm created since the start counts, so no other program may use /dev/shm meanwhile.

The first half of the steps lets allocators, caches and thread pools fill up. Growth is the median slope between all
pairs of steps in the second half (Theil-Sen), which is robust to outlying steps. A measure grows if its slope exceeds
its ALLOWANCE per 100 steps; processes missing at the first or last of these steps are not judged. Prints a Markdown
table and, as the last line, JSON. The exit status is the command's, or 1 if something grows.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import psutil

from benchmarks.observed_command import observed, steps_of

SHARED_MEMORY = Path("/dev/shm")
# Growth of each measure that is allowed per 100 steps.
ALLOWANCE = {
    "memory_mib": 8.0,
    "open_files": 1.0,
    "threads": 1.0,
    "segments": 1.0,
    "segments_mib": 8.0,
    "all_mib": 24.0,
}

# Value by measure.
Sample = dict[str, float]
# Sample by process, "all" or "/dev/shm", and by step.
Samples = dict[str, dict[int, Sample]]


def name_of(process: psutil.Process) -> str:
    """Name a process, with its id: the class of a Ray actor, the module of a Python program, or its executable."""
    command = process.cmdline()
    if actor := re.match(r"ray::(\w+)", command[0]):
        name = actor[1]
    elif "-m" in command:
        name = command[command.index("-m") + 1]
    else:
        name = next((Path(part).name for part in command[1:] if part.endswith(".py")), process.name())
    return f"{name} {process.pid}"


def sample_process(process: psutil.Process) -> Sample:
    """Measure a process: memory in MiB, open files, threads, and segments of shared memory that it maps."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return {
        "memory_mib": sum(map(int, re.findall(r"Pss_(?:Anon|Shmem): +(\d+) kB", rollup))) / 2**10,
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
        "segments": len(set(re.findall(rf"{SHARED_MEMORY}/\S+", maps))),
    }


def sample_tree(root: psutil.Process) -> dict[str, Sample]:
    """Measure a process and its descendants, except those that end meanwhile."""
    samples = {}
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, IndexError):
            samples[name_of(process)] = sample_process(process)
    return samples | {"all": {"all_mib": sum(sample["memory_mib"] for sample in samples.values())}}


def segments() -> dict[Path, int]:
    """The bytes of every named segment of shared memory."""
    sizes = {}
    for segment in SHARED_MEMORY.iterdir():
        with suppress(FileNotFoundError):
            sizes[segment] = segment.stat().st_size
    return sizes


def slope(values: Mapping[int, float]) -> float:
    """The median slope between all pairs of steps, per 100 steps."""
    return statistics.median(
        100 * (values[later] - values[earlier]) / (later - earlier) for earlier, later in combinations(values, 2)
    )


def judge(samples: Samples) -> dict[str, dict[str, dict[str, float | bool]]]:
    """Values, slope and verdict by process and measure, for processes present at both ends of the second half."""
    steps = sorted(samples["all"])
    shown, second_half = (steps[len(steps) // 10], steps[len(steps) // 2], steps[-1]), steps[len(steps) // 2 :]
    result: dict[str, dict[str, dict[str, float | bool]]] = {}
    for name, by_step in samples.items():
        judged = [step for step in second_half if step in by_step]
        if len(judged) < 2 or {judged[0], judged[-1]} != {second_half[0], second_half[-1]}:
            continue
        result[name] = {}
        for measure in by_step[judged[0]]:
            growth = slope({step: by_step[step][measure] for step in judged})
            values = {f"step_{step}": round(by_step[step][measure], 1) for step in shown if step in by_step}
            verdict = {"per_100_steps": round(growth, 2), "grows": growth > ALLOWANCE[measure]}
            result[name][measure] = {**values, **verdict}
    return result


def render(judged: Mapping[str, Mapping[str, Mapping[str, float | bool]]]) -> str:
    """Format the measures as a Markdown table."""
    columns = [column for column in judged["all"]["all_mib"] if column != "grows"]
    lines = [f"| what | measure | {' | '.join(columns)} | verdict |", f"{'|---' * (len(columns) + 3)}|"]
    for name, measures in judged.items():
        for measure, values in measures.items():
            cells = [name, measure, *(str(values.get(column, "")) for column in columns)]
            lines.append(f"| {' | '.join(cells)} | {'grows' if values['grows'] else 'flat'} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command after `--` and print the table and the verdicts."""
    parser = argparse.ArgumentParser(description="Report which processes of a training command leak.")
    parser.add_argument("--samples", type=Path, help="JSON file for all samples")
    parser.add_argument("command", nargs="+", help="the command, after --")
    arguments = parser.parse_args()
    before = segments()
    samples = Samples()
    with observed(arguments.command) as command:
        root = psutil.Process(command.pid)
        for step in steps_of(command):
            added = [size for segment, size in segments().items() if segment not in before]
            shared = {"segments": len(added), "segments_mib": sum(added) / 2**20}
            for name, sample in (sample_tree(root) | {"/dev/shm": shared}).items():
                samples.setdefault(name, {})[step] = sample
        status = command.wait()
    if arguments.samples:
        arguments.samples.write_text(json.dumps(samples))
    if len(samples.get("all", {})) < 4:
        sys.exit(f"fewer than 4 steps in the command's output (status {status}): train longer, with --verbose")
    judged = judge(samples)
    grows = [
        f"{name}: {measure}"
        for name, measures in judged.items()
        for measure, values in measures.items()
        if values["grows"]
    ]
    print(render(judged))
    print("flat" if not grows else f"growing: {', '.join(grows)}")
    print(json.dumps({"status": status, "grows": grows, "all": judged.get("all"), "/dev/shm": judged.get("/dev/shm")}))
    sys.exit(status or bool(grows))


if __name__ == "__main__":
    main()
