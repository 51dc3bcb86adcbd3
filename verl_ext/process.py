"""What a process of a run does before all else; imports nothing, as whatever it imported would come before that.

Ray runs it in each of its workers, see `ray_kwargs.ray_init.runtime_env.worker_process_setup_hook`.
"""

import gc


def collect_garbage_rarely() -> None:
    """Have Python look for cyclic garbage after 20,000 new objects instead of 700.

    Importing veRL and vLLM makes 600,000 objects that stay, and every search among all of them takes 0.2 s or more;
    with Python's own threshold there are several in each start of a process, and more with every step. What can go is
    freed by its reference count as before: only cycles wait longer. The older generations are searched after as many
    searches of the younger as ever, since cycles that wait there may hold tensors.
    """
    gc.set_threshold(20_000)
