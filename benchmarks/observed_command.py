"""Runs a command whose processes a benchmark looks at, and ends it together with the benchmark."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


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
