"""Shows a run on the console: its head, the phases of its start, and its steps.

Phases are read from Ray's list of actors, steps from veRL's FileLogger, which `follow_steps` adds to the loggers.
"""

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmupt.console import Head, Phase, emit, follow, shown_path
from mmupt.runtime.preflight import row_counts
from verl_ext.counts import pluralize
from verl_ext.files import file_list

SECONDS_BETWEEN_LOOKS = 0.5

# Part of the name of a veRL actor -> the phase that begins with this actor, in the order of creation.
PHASES_OF_ACTORS = {
    "TransferQueueController": "start the trainer",
    # verl/single_controller/ray/base.py
    "WorkerDict": "load the model",
    # verl/workers/rollout/vllm_rollout/vllm_async_server.py
    "vllm_server": "start the engine",
}
# The last actor that veRL creates (verl/experimental/agent_loop/agent_loop.py).
AGENT_LOOP = "agent_loop_worker"
SECONDS_TO_END = 5.0


def head_of(config: DictConfig, overrides: Sequence[str]) -> Head:
    """The first lines on the console: recipe, model, method and data of a run. The data sets must be prepared."""
    folder = shown_path(Path(config.mmupt.run_folder))
    method = config.mmupt.baseline.method
    rollout, data = config.actor_rollout_ref.rollout, config.data
    steps = config.trainer.total_training_steps
    epochs = pluralize(config.trainer.total_epochs, "epoch")
    length = f"{epochs} in steps" if steps is None else pluralize(steps, "step")
    votes = OmegaConf.select(config, "reward.reward_kwargs.vote.vote_n")
    responses = f"{rollout.n} responses each" if votes is None else f"{votes} responses each, {rollout.n} trained on"
    work = f"{length} of {data.train_batch_size} prompts, {responses}"
    rows = {
        "trained on": _rows(data.train_files),
        "validation": _rows(data.val_files),
        "evaluation": _rows(config.mmupt.evaluation_files),
    }
    return Head(
        {
            "recipe": " ".join([str(config.trainer.experiment_name), *overrides]),
            "model": str(config.actor_rollout_ref.model.path),
            "method": method or f"{config.reward.reward_manager.name}, {work}",
            "data": ", ".join(f"{name} {pluralize(count, 'question')}" for name, count in rows.items() if count),
            "writes to": f"{folder}, all output to {folder}/logs/train.log",
            "see more": f"mmupt view {folder}, or --verbose",
        }
    )


def _rows(files: str | list[str] | None) -> int:
    # The row checks that follow refuse unreadable files.
    return sum(row_counts(file_list(files)) or ())


def follow_steps(config: DictConfig, total: int | None) -> None:
    """Make veRL also log steps to a file, and show these steps on the console.

    The run's environment variables must be set. An existing file is renamed if `trainer.logger` lists `file`, and
    removed otherwise.
    """
    loggers = file_list(config.trainer.logger)
    keep = "file" in loggers
    config.trainer.logger = loggers if keep else [*loggers, "file"]
    follow(_metrics_file(config, os.environ), total, keep=keep)


def _metrics_file(config: DictConfig, environ: Mapping[str, str]) -> Path:
    """The path that veRL's FileLogger writes to (verl/utils/tracking.py)."""
    if path := environ.get("VERL_FILE_LOGGER_PATH"):
        return Path(path)
    root = Path(environ["VERL_FILE_LOGGER_ROOT"]).expanduser()
    return root / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"


@contextmanager
def start_phases(validates_first: bool) -> Iterator[None]:
    """Emit the phases of a training's start while the block runs, up to the first generation of responses.

    The block must stay connected to Ray until it ends.
    """
    ended = threading.Event()
    emit(Phase("start Ray"))
    phases = {**PHASES_OF_ACTORS, AGENT_LOOP: "first validation" if validates_first else "train"}
    watcher = threading.Thread(target=_watch_start, args=(ended, phases), name="start phases", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        # A call to a lost cluster may hang.
        watcher.join(SECONDS_TO_END)


def _watch_start(ended: threading.Event, left: dict[str, str]) -> None:
    import ray

    while left and not ended.wait(SECONDS_BETWEEN_LOOKS):
        if ray.is_initialized():
            actors = ray.util.list_named_actors(all_namespaces=True)
            if phase := take_last_begun([actor["name"] for actor in actors], left):
                emit(Phase(phase))


def take_last_begun(actors: Collection[str], left: dict[str, str]) -> str | None:
    """Return the latest phase that has begun, None if no new phase has; remove it and earlier phases from `left`.

    `left` maps part of an actor's name to the phase that begins with this actor, in order.
    """
    phase = None
    parts = list(left)
    begun = [number for number, part in enumerate(parts) if any(part in actor for actor in actors)]
    for part in parts[: max(begun, default=-1) + 1]:
        phase = left.pop(part)
    return phase
