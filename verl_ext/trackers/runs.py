"""Continues the run of each tracker after a restart, without logging a step twice.

A resumed run repeats the steps after its last checkpoint. Trackers keep the first values of these steps, as wandb and
SwanLab do online by default. Only TensorBoard gets the repeated values, because it can drop the earlier ones.

`trackers.json` in the run folder stores the run and the last logged step of each tracker.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_ext.config_defaults import SAMPLER
from verl_ext.files import write_json


class TrackerRecord:
    """The file from which a restart learns the run and the last step of each tracker."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._content: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}

    def run(self, tracker: str) -> str | None:
        """Return the run of a tracker, None if it has none yet."""
        return self._content.get(tracker, {}).get("run")

    def last_step(self, tracker: str) -> int:
        """Return the last step logged to a tracker, -1 if there is none."""
        return int(self._content.get(tracker, {}).get("step", -1))

    def begin(self, tracker: str, run: str) -> None:
        """Set the run of a tracker; a different run than before has no steps."""
        if self.run(tracker) != run:
            self._content[tracker] = {"run": run, "step": -1}

    def forget(self, tracker: str) -> None:
        """Remove a tracker from the record."""
        self._content.pop(tracker, None)

    def logged(self, tracker: str, step: int) -> None:
        """Record a step as logged and write the file."""
        self._content[tracker]["step"] = int(step)
        write_json(self.file, self._content)


class OncePerStep:
    """Wraps a tracker of veRL and skips the steps that were logged before a restart."""

    def __init__(self, name: str, tracker: Any, record: TrackerRecord) -> None:
        self._name, self._tracker, self._record = name, tracker, record
        self._before = record.last_step(name)
        self._has_reported = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def takes(self, step: int) -> bool:
        """Whether a step is new to the tracker; prints a line at the first step that is not."""
        if step > self._before:
            return True
        if not self._has_reported:
            self._has_reported = True
            print(f"{self._name} keeps its values of the steps up to {self._before}, from before the restart")
        return False

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Log the metrics of a step that is new to the tracker."""
        if self.takes(step):
            self._write(data, step)
            self._record.logged(self._name, step)

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        self._tracker.log(data=data, step=step)


class WandbRun(OncePerStep):
    """wandb, which would hold back each step until the next step begins if the step were not committed."""

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        self._tracker.log(data=data, step=step, commit=True)


class TensorboardRun(OncePerStep):
    """TensorBoard, which is told where the run resumes and drops the earlier values of repeated steps.

    Args:
        validates_first: whether the first call logs the validation of the checkpoint that the run resumes from.
    """

    def __init__(self, name: str, tracker: Any, record: TrackerRecord, *, validates_first: bool) -> None:
        super().__init__(name, tracker, record)
        self._validates_first = validates_first
        self._is_first = True
        self._refused: int | None = None

    def takes(self, step: int) -> bool:
        """Whether to log a step: every step except the validation that was logged before the restart."""
        if not self._is_first:
            return step != self._refused
        self._is_first = False
        if step > self._before:
            return True
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # Same event as SummaryWriter's argument purge_step.
        start = step + 1 if self._validates_first else step
        session = SessionLog(status=SessionLog.START)
        self._tracker.writer.file_writer.add_event(Event(step=start, session_log=session))
        self._refused = step if self._validates_first else None
        return not self._validates_first

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        super()._write(data, step)
        # Flush, because a kill loses the events that TensorBoard has buffered.
        self._tracker.writer.flush()


def record_file(config: Mapping[str, Any] | None) -> Path | None:
    """Return the record file named in the config that veRL passes to its trackers; None without our replay buffer."""
    trainer = (config or {}).get("trainer") or {}
    sampler = (trainer.get("v1") or {}).get("sampler") or {}
    custom = sampler.get("custom_sampler") or {}
    if (custom.get("path"), custom.get("name")) != SAMPLER:
        return None
    return Path(sampler["sampler_kwargs"]["trackers"])


def prepare(
    names: Sequence[str], project: str, run_name: str, config: Mapping[str, Any], record: TrackerRecord
) -> bytes:
    """Make veRL continue the recorded runs: set environment variables, and start trackers that read none.

    Returns `kept_lines` for `continue_runs`.
    """
    if "mlflow" in names:
        _prepare_mlflow(project, record)
    if "trackio" in names:
        _start_trackio(project, run_name, config, record)
    return _lines_of_file_logger(project, run_name, record) if "file" in names else b""


def continue_runs(loggers: dict[str, Any], record: TrackerRecord, kept_lines: bytes, *, validates_first: bool) -> None:
    """Wrap veRL's trackers, in place, so that none gets a step twice.

    Args:
        loggers: trackers by name, veRL's `Tracking.logger`.
        kept_lines: earlier content of the file logger's file, from `prepare`.
        validates_first: whether the run validates before it trains.
    """
    for name, tracker in loggers.items():
        if (run := _run_of(name, tracker, record)) is None:
            continue
        if name == "file" and not kept_lines:
            # The file is empty, whatever the record says.
            record.forget(name)
        record.begin(name, run)
        if name == "tensorboard":
            loggers[name] = TensorboardRun(name, tracker, record, validates_first=validates_first)
        else:
            loggers[name] = (WandbRun if name == "wandb" else OncePerStep)(name, tracker, record)
    if kept_lines:
        loggers["file"].fp.write(kept_lines)


def _run_of(name: str, tracker: Any, record: TrackerRecord) -> str | None:
    """Return an id of the run that a tracker logs to, for files their path; None if every start is a new run."""
    if name == "wandb":
        return None if tracker.run is None else str(tracker.run.id)
    if name == "mlflow":
        import mlflow

        return str(mlflow.active_run().info.run_id)
    if name == "swanlab":
        return os.environ.get("SWANLAB_RUN_ID")
    if name == "trackio":
        return _trackio_run()
    if name not in ("tensorboard", "file"):
        return None
    return os.path.relpath(tracker.filepath if name == "file" else tracker.writer.log_dir, record.file.parent)


def _prepare_mlflow(project: str, record: TrackerRecord) -> None:
    if os.environ.get("MLFLOW_RUN_ID"):
        return
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return
    mlflow.set_tracking_uri(uri)
    run = record.run("mlflow")
    if run is not None:
        try:
            mlflow.get_run(run)
            os.environ["MLFLOW_RUN_ID"] = run
        except MlflowException as error:
            print(f"mlflow starts a new run, as {uri} does not have that of {record.file}: {error}")
    elif uri.startswith("sqlite:") and mlflow.get_experiment_by_name(project) is None:
        # With a local database, mlflow would put artifacts into the working directory by default.
        mlflow.create_experiment(project, artifact_location=(record.file.parent / "mlflow").absolute().as_uri())


def _start_trackio(project: str, run_name: str, config: Mapping[str, Any], record: TrackerRecord) -> None:
    import trackio

    recorded = record.run("trackio")
    trackio.init(project=project, name=run_name, config=dict(config), resume="allow" if recorded else "never")
    # If several runs share a folder, another run may have the same name.
    if recorded and _trackio_run() != recorded:
        trackio.init(project=project, name=run_name, config=dict(config), resume="never")


def _trackio_run() -> str:
    from trackio import context_vars

    return str(context_vars.current_run.get().id)


def _lines_of_file_logger(project: str, run_name: str, record: TrackerRecord) -> bytes:
    """Return this run's lines from the file of veRL's file logger, which veRL truncates at a start."""
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    file = Path(os.environ.get("VERL_FILE_LOGGER_PATH") or root / project / f"{run_name}.jsonl")
    if record.run("file") != os.path.relpath(file, record.file.parent) or not file.is_file():
        return b""
    content = file.read_bytes()
    # Drop a last line that a kill has truncated.
    return content[: content.rfind(b"\n") + 1]
