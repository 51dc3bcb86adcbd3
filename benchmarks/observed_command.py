"""Runs a command whose processes a benchmark samples, and ends it together with the benchmark."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

# The metrics of a step, as veRL's console logger prints them.
STEP = re.compile(rb"(?<!_)step:(\d+) - ")


@contextmanager
def observed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command and yield it; its `stdout` has standard output and standard error.

    If the block raises or is interrupted, or this process gets SIGTERM, terminate the command and wait for it, so that
    `mmupt train` ends its Ray processes.
    """
    handler = signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                yield process
            except BaseException:
                process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def steps_of(command: subprocess.Popen[bytes]) -> Iterator[int]:
    """Print the output of an observed command, and yield each step whose metrics appear in it."""
    assert command.stdout is not None
    for line in command.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
        if match := STEP.search(line):
            yield int(match[1])
