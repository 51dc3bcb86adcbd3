"""Memory of a run's processes: makes garbage collection rarer, and returns freed memory to the system.

Imports nothing large, because Ray runs `collect_garbage_rarely` first in each of its workers, see
`ray_kwargs.ray_init.runtime_env.worker_process_setup_hook`.
"""

import ctypes
import gc


def collect_garbage_rarely() -> None:
    """Have Python look for cyclic garbage after 20,000 new objects instead of 700.

    Importing veRL and vLLM creates 600,000 lasting objects. A full collection, which scans all of them, takes 0.2 s or
    more, and Python's own threshold causes several in each process start and more with every step. Reference counts
    free memory as before; only cycles wait longer. The ratios between generations stay, because old cycles may hold
    tensors.
    """
    gc.set_threshold(20_000)


def return_freed_memory() -> None:
    """Return the freed memory that glibc keeps to the system; do nothing without glibc.

    glibc's heaps shrink only at their ends. Processing images allocates and frees large blocks among small lasting
    blocks: the gaps do not fit the next large block, and the heaps grow with every image. The call takes milliseconds.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
