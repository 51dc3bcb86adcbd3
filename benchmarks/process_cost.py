"""Run a training command; print the CPU seconds of each process until the end of the first step, and per step.

    .venv/bin/python benchmarks/process_cost.py -- \
        make train ARGS="--verbose trainer.total_training_steps=8 trainer.test_freq=-1"

Unlike wall-clock time, CPU time hardly depends on other work of the machine. Samples every process of the command's
tree whenever veRL's console logger prints the metrics of a step; these go to the console only with --verbose. A process
includes its finished children. Prints a Markdown table; the exit status is the command's.
"""

import argparse
import sys
from collections import Counter
from contextlib import suppress

import psutil

from benchmarks.memory_leaks import name_of
from benchmarks.observed_command import observed, steps_of


def cpu_seconds(root: psutil.Process) -> Counter[str]:
    """The CPU seconds of a process and its descendants so far, summed by process name."""
    seconds: Counter[str] = Counter()
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
            times = process.cpu_times()
            name, _, _ = name_of(process).rpartition(" ")
            seconds[name] += times.user + times.system + times.children_user + times.children_system
    return seconds


def main() -> None:
    """Run the command after `--` and print the table."""
    parser = argparse.ArgumentParser(description="CPU seconds of each process of a training command.")
    parser.add_argument("command", nargs="+", help="the command, after --")
    at_step: dict[int, Counter[str]] = {}
    with observed(parser.parse_args().command) as command:
        root = psutil.Process(command.pid)
        for step in steps_of(command):
            at_step[step] = cpu_seconds(root)
        status = command.wait()
    if len(at_step) < 2:
        sys.exit(f"fewer than 2 steps in the command's output (status {status}): train longer, with --verbose")
    first, last = min(at_step), max(at_step)
    start, end = at_step[first], at_step[last]
    print("| process | CPU s until the first step has ended | CPU s per step |\n|---|---|---|")
    for name in sorted(end, key=lambda name: -start[name]):
        print(f"| {name} | {start[name]:.1f} | {(end[name] - start[name]) / (last - first):.2f} |")
    per_step = (end.total() - start.total()) / (last - first)
    print(f"| **all** | {start.total():.1f} | {per_step:.2f} |")
    sys.exit(status)


if __name__ == "__main__":
    main()
