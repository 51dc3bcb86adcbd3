"""Run a command; print its wall-clock time and the peak memory of all its processes together.

    .venv/bin/python benchmarks/peak_memory.py make train

Memory is the sum of PSS (each shared page is split among the processes that share it), sampled every two seconds.
The last line printed is JSON.
"""

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

SECONDS_BETWEEN_SAMPLES = 2.0


def tree_pss(root: psutil.Process) -> int:
    """Return the PSS of a process and its descendants in bytes, without processes that end meanwhile."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
    return total


def main() -> None:
    """Run the given command, print its figures and exit with its status."""
    start = time.monotonic()
    command = subprocess.Popen(sys.argv[1:])
    root, peak, ended = psutil.Process(command.pid), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN_SAMPLES):
            peak[0] = max(peak[0], tree_pss(root))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = command.wait()
    ended.set()
    watcher.join()
    result = {"seconds": round(time.monotonic() - start, 1), "peak_gib": round(peak[0] / 2**30, 2), "status": status}
    print(json.dumps(result))
    sys.exit(status)


if __name__ == "__main__":
    main()
