"""How a process of a run deals with memory: its garbage, and what it has freed.

Imports nothing large, as Ray runs `collect_garbage_rarely` in each of its workers before all else, see
`ray_kwargs.ray_init.runtime_env.worker_process_setup_hook`.
"""

import ctypes
import gc


def collect_garbage_rarely() -> None:
    """Have Python look for cyclic garbage after 20,000 new objects instead of 700.

    Importing veRL and vLLM makes 600,000 objects that stay, and every search among all of them takes 0.2 s or more;
    with Python's own threshold there are several in each start of a process, and more with every step. What can go is
    freed by its reference count as before: only cycles wait longer. The older generations are searched after as many
    searches of the younger as ever, since cycles that wait there may hold tensors.
    """
    gc.set_threshold(20_000)


def return_freed_memory() -> None:
    """Return to the system what this process has freed; glibc keeps much of it, and nothing is done without glibc.

    Its heaps shrink from their ends only. Where blocks of many megabytes come and go among small ones that stay, as
    they do while images are processed, freed memory lies between those, does not fit the next large block, and the
    heaps grow with every image. The call takes milliseconds.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
