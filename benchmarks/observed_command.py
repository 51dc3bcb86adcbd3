"""Runs a command whose processes a benchmark looks at, and ends it together with the benchmark."""

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
    """Start a command, and yield it; what it prints, errors included, is its `stdout`.

    If the block fails, is interrupted or this process gets SIGTERM, the command gets SIGTERM and is waited for: a run
    of `mmupt train` then ends its Ray processes.
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
    """Print what an observed command prints, and yield each step whose metrics are among it."""
    assert command.stdout is not None
    for line in command.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
        if found := STEP.search(line):
            yield int(found[1])
