"""What the console shows of a run: its head, and the phases of its start, which Ray's list of actors tells.

Steps come from veRL's FileLogger, which `follow_steps` adds to the loggers of the run.
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

# Parts of the names of veRL's actors, in the order in which it creates them, and the phase that begins with each.
PHASES_OF_ACTORS = {
    "TransferQueueController": "start the trainer",
    # verl/single_controller/ray/base.py
    "WorkerDict": "load the model",
    # verl/workers/rollout/vllm_rollout/vllm_async_server.py
    "vllm_server": "start the engine",
}
# The last of them (verl/experimental/agent_loop/agent_loop.py).
AGENT_LOOP = "agent_loop_worker"
SECONDS_TO_END = 5.0


def head_of(config: DictConfig, overrides: Sequence[str]) -> Head:
    """What a run is, for the first lines on the screen; its data exist."""
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
    # A file that cannot be read is refused by the checks that follow.
    return sum(row_counts(file_list(files)) or ())


def follow_steps(config: DictConfig, total: int | None) -> None:
    """Have veRL log the steps of a run, whose variables are set, to a file as well, and the console show them."""
    loggers = file_list(config.trainer.logger)
    is_wanted = "file" in loggers
    config.trainer.logger = loggers if is_wanted else [*loggers, "file"]
    follow(_metrics_file(config, os.environ), total, keep=is_wanted)


def _metrics_file(config: DictConfig, environ: Mapping[str, str]) -> Path:
    """The file of veRL's FileLogger (verl/utils/tracking.py)."""
    if path := environ.get("VERL_FILE_LOGGER_PATH"):
        return Path(path)
    root = Path(environ["VERL_FILE_LOGGER_ROOT"]).expanduser()
    return root / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"


@contextmanager
def start_phases(validates_first: bool) -> Iterator[None]:
    """Emit the phases of a training's start while the block starts it by Ray, until it generates its first responses.

    Ray must stay connected until the block ends.
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
        # A call of a cluster that is gone may hang.
        watcher.join(SECONDS_TO_END)


def _watch_start(ended: threading.Event, left: dict[str, str]) -> None:
    import ray

    while left and not ended.wait(SECONDS_BETWEEN_LOOKS):
        if ray.is_initialized():
            actors = ray.util.list_named_actors(all_namespaces=True)
            if phase := take_last_begun([actor["name"] for actor in actors], left):
                emit(Phase(phase))


def take_last_begun(actors: Collection[str], left: dict[str, str]) -> str | None:
    """Return the last phase that has begun, None for no new one; it and those before it are removed from `left`.

    `left` has the phases by a part of the name of the actor that each begins with, in their order.
    """
    phase = None
    parts = list(left)
    begun = [number for number, part in enumerate(parts) if any(part in actor for actor in actors)]
    for part in parts[: max(begun, default=-1) + 1]:
        phase = left.pop(part)
    return phase
