"""Logs when each phase of a step begins and ends, and the peak GPU memory of each rank in it.

veRL imports this module in every process of a run with VERL_USE_EXTERNAL_MODULES=benchmarks.gpu.phase_log. The log is
the file that MMUPT_PHASE_LOG names, with one JSON object per line:

    {"phase": "gen", "begin": 1764258000.1, "end": 1764258007.9}                        from the trainer, seconds
    {"phase": "update_actor", "rank": 0, "allocated_gib": 41.2, "reserved_gib": 44.0}   from a rank, peaks

Phases have veRL's names, as in timing_s/*. A rank resets its peaks when a phase begins, so veRL's own
actor/perf/max_memory_allocated_gb becomes the peak of the update.
"""

import functools
import inspect
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import wrapt

FILE = "MMUPT_PHASE_LOG"
# Modules of verl.trainer.ppo.v1 that time phases with `marked_timer`.
TRAINERS = ("trainer_base", "trainer_sync", "trainer_colocate_async", "trainer_separate_async")
# Phases by the method of veRL's worker that runs them.
METHODS = {
    "compute_log_prob": "old_log_prob",
    "compute_ref_log_prob": "ref",
    "update_actor": "update_actor",
    "update_weights": "update_weights",
}


def note(**fields: Any) -> None:
    """Append a JSON line to the log."""
    with open(os.environ[FILE], "a") as file:
        file.write(json.dumps(fields) + "\n")


def _time_phases(trainer: ModuleType) -> None:
    marked_timer = trainer.marked_timer

    @contextmanager
    def noted(name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        begin = time.time()
        with marked_timer(name, *args, **kwargs):
            yield
        note(phase=name, begin=begin, end=time.time())

    trainer.marked_timer = noted  # type: ignore[attr-defined]


def _measure_memory(workers: ModuleType) -> None:
    worker = workers.ActorRolloutRefWorker
    for name, phase in METHODS.items():
        setattr(worker, name, with_peaks(getattr(worker, name), phase, workers))


def with_peaks(method: Callable[..., Any], phase: str, workers: ModuleType) -> Callable[..., Any]:
    """Wrap a worker's method to log its peak memory; keeps the attributes that veRL has set on the method."""

    @contextmanager
    def noted(worker: Any) -> Iterator[None]:
        device = workers.get_torch_device()
        device.reset_peak_memory_stats()
        yield
        peaks = {"allocated_gib": device.max_memory_allocated(), "reserved_gib": device.max_memory_reserved()}
        note(phase=phase, rank=worker.rank, **{name: peak / 2**30 for name, peak in peaks.items()})

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def measured_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            with noted(self):
                return await method(self, *args, **kwargs)

        return measured_async

    @functools.wraps(method)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        with noted(self):
            return method(self, *args, **kwargs)

    return measured


if FILE in os.environ:
    for name in TRAINERS:
        wrapt.register_post_import_hook(_time_phases, f"verl.trainer.ppo.v1.{name}")
    wrapt.register_post_import_hook(_measure_memory, "verl.workers.engine_workers")
