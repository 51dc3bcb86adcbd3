"""Run a command that trains; say which of its processes grow from step to step, in memory, open files or shared memory.

    .venv/bin/python benchmarks/memory_leaks.py -- \
        make train ARGS="--verbose trainer.total_training_steps=200 trainer.test_freq=-1"

Whenever veRL's console logger prints the metrics of a step, every process of the command's tree is looked at; without
--verbose they are in the run's log alone. Memory is the anonymous and shared memory of a process, each page split among
those who share it; pages of files, such as libraries, are left out, as their share changes with whatever else runs. Of
/dev/shm everything counts that was made since the start, so that nothing else may use it meanwhile.

The first half of the steps is for allocators, caches and thread pools to fill. Over the second half the slope is the
median of the slopes between all pairs of steps (Theil-Sen), which single steps do not move. What grows by more than its
ALLOWANCE in 100 steps is said to grow; what was not there at the first and the last of these steps is not judged. The
last line printed is JSON; the exit status is the command's, or 1 where something grows.
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
# By how much each measure may grow in 100 steps.
ALLOWANCE = {
    "memory_mib": 8.0,
    "open_files": 1.0,
    "threads": 1.0,
    "segments": 1.0,
    "segments_mib": 8.0,
    "all_mib": 24.0,
}

# A measure by its name.
Sample = dict[str, float]
# All samples: what was looked at -> step -> sample.
Samples = dict[str, dict[int, Sample]]


def name_of(process: psutil.Process) -> str:
    """What a process is, with its id: Ray's actors by their class, Python programs by their module."""
    command = process.cmdline()
    if actor := re.match(r"ray::(\w+)", command[0]):
        name = actor[1]
    elif "-m" in command:
        name = command[command.index("-m") + 1]
    else:
        name = next((Path(part).name for part in command[1:] if part.endswith(".py")), process.name())
    return f"{name} {process.pid}"


def sample_process(process: psutil.Process) -> Sample:
    """Look at a process: its memory, open files, threads, and the segments of shared memory that it maps."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return {
        "memory_mib": sum(map(int, re.findall(r"Pss_(?:Anon|Shmem): +(\d+) kB", rollup))) / 2**10,
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
        "segments": len(set(re.findall(rf"{SHARED_MEMORY}/\S+", maps))),
    }


def sample_tree(root: psutil.Process) -> dict[str, Sample]:
    """Look at a process and its descendants; those that end meanwhile are left out."""
    found = {}
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, IndexError):
            found[name_of(process)] = sample_process(process)
    return found | {"all": {"all_mib": sum(sample["memory_mib"] for sample in found.values())}}


def segments() -> dict[Path, int]:
    """The bytes of every segment of shared memory that has a name."""
    found = {}
    for segment in SHARED_MEMORY.iterdir():
        with suppress(FileNotFoundError):
            found[segment] = segment.stat().st_size
    return found


def slope(values: Mapping[int, float]) -> float:
    """The median of the slopes between all pairs of steps, over 100 steps."""
    return statistics.median(
        100 * (values[later] - values[earlier]) / (later - earlier) for earlier, later in combinations(values, 2)
    )


def judge(samples: Samples) -> dict[str, dict[str, dict[str, float | bool]]]:
    """Values, slope and verdict of every measure of whatever lived through the second half of the steps."""
    steps = sorted(samples["all"])
    shown, second_half = (steps[len(steps) // 10], steps[len(steps) // 2], steps[-1]), steps[len(steps) // 2 :]
    result: dict[str, dict[str, dict[str, float | bool]]] = {}
    for name, by_step in samples.items():
        judged = [step for step in second_half if step in by_step]
        if len(judged) < 2 or {judged[0], judged[-1]} != {second_half[0], second_half[-1]}:
            continue
        result[name] = {}
        for measure in by_step[judged[0]]:
            grown = slope({step: by_step[step][measure] for step in judged})
            values = {f"step_{step}": round(by_step[step][measure], 1) for step in shown if step in by_step}
            verdict = {"per_100_steps": round(grown, 2), "grows": grown > ALLOWANCE[measure]}
            result[name][measure] = {**values, **verdict}
    return result


def render(judged: Mapping[str, Mapping[str, Mapping[str, float | bool]]]) -> str:
    """A table in Markdown, one row for each measure."""
    columns = [column for column in judged["all"]["all_mib"] if column != "grows"]
    lines = [f"| what | measure | {' | '.join(columns)} | verdict |", f"{'|---' * (len(columns) + 3)}|"]
    for name, measures in judged.items():
        for measure, values in measures.items():
            cells = [name, measure, *(str(values.get(column, "")) for column in columns)]
            lines.append(f"| {' | '.join(cells)} | {'grows' if values['grows'] else 'flat'} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command after `--` and print the table and the verdicts."""
    parser = argparse.ArgumentParser(description="Say which processes of a command that trains grow.")
    parser.add_argument("--samples", type=Path, help="file for all samples as JSON")
    parser.add_argument("command", nargs="+", help="the command, after --")
    arguments = parser.parse_args()
    before = segments()
    samples = Samples()
    with observed(arguments.command) as command:
        root = psutil.Process(command.pid)
        for step in steps_of(command):
            made = {segment: size for segment, size in segments().items() if segment not in before}
            shared = {"segments": len(made), "segments_mib": sum(made.values()) / 2**20}
            for name, sample in (sample_tree(root) | {"/dev/shm": shared}).items():
                samples.setdefault(name, {})[step] = sample
        status = command.wait()
    if arguments.samples:
        arguments.samples.write_text(json.dumps(samples))
    if len(samples.get("all", {})) < 4:
        sys.exit(f"fewer than 4 steps were seen in what the console logger prints; the command ended with {status}")
    judged = judge(samples)
    grows = [f"{name}: {measure}" for name, kinds in judged.items() for measure, it in kinds.items() if it["grows"]]
    print(render(judged))
    print("flat" if not grows else f"growing: {', '.join(grows)}")
    print(json.dumps({"status": status, "grows": grows, "all": judged.get("all"), "/dev/shm": judged.get("/dev/shm")}))
    sys.exit(status or bool(grows))


if __name__ == "__main__":
    main()
