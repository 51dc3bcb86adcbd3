"""Memory of a run's processes: how often Python collects garbage, and returning freed memory to the system.

Imports nothing large, because Ray runs `collect_garbage_rarely` first in each of its workers, see
`ray_kwargs.ray_init.runtime_env.worker_process_setup_hook`.
"""

import ctypes
import gc


def collect_garbage_rarely() -> None:
    """Have Python look for cyclic garbage after 20,000 new objects instead of 700.

    Importing veRL and vLLM creates 600,000 lasting objects, and every search of all of them takes 0.2 s or more; with
    Python's own threshold there are several in each start of a process, and more with every step. Reference counts free
    memory as before; only cycles wait longer. The ratios between generations stay, because old cycles may hold tensors.
    """
    gc.set_threshold(20_000)


def return_freed_memory() -> None:
    """Return freed memory, much of which glibc keeps, to the system; without glibc do nothing.

    glibc's heaps shrink from their ends only. While images are processed, large blocks come and go among small ones
    that stay: the freed gaps do not fit the next large block, and the heaps grow with every image. The call takes
    milliseconds.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
