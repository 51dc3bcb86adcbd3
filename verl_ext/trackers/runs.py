"""Continues the run of each tracker after a restart, without logging a step twice.

A resumed run repeats the steps after its last checkpoint. A tracker that has them keeps its first values, as wandb and
SwanLab do by themselves online; of TensorBoard the repeated values count, as it can drop the earlier ones.

`trackers.json` in the run folder names for each tracker its run and the last step that it got.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_ext.config_defaults import SAMPLER
from verl_ext.files import write_json


class TrackerRecord:
    """The file that tells a restart what each tracker has."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._content: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}

    def run(self, tracker: str) -> str | None:
        """The run of a tracker; None if it has none yet."""
        return self._content.get(tracker, {}).get("run")

    def last_step(self, tracker: str) -> int:
        """The last step that a tracker got, -1 before the first."""
        return int(self._content.get(tracker, {}).get("step", -1))

    def begin(self, tracker: str, run: str) -> None:
        """Note the run of a tracker, of which nothing is known unless it is the one noted before."""
        if self.run(tracker) != run:
            self._content[tracker] = {"run": run, "step": -1}

    def forget(self, tracker: str) -> None:
        """Note that nothing is known of a tracker."""
        self._content.pop(tracker, None)

    def logged(self, tracker: str, step: int) -> None:
        """Note that a tracker has a step."""
        self._content[tracker]["step"] = int(step)
        write_json(self.file, self._content)


class OncePerStep:
    """A tracker as veRL calls it, which gets no step that it has from before a restart."""

    def __init__(self, name: str, tracker: Any, record: TrackerRecord) -> None:
        self._name, self._tracker, self._record = name, tracker, record
        self._before = record.last_step(name)
        self._has_said = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def takes(self, step: int) -> bool:
        """Whether a step is new to the tracker; the first one that is not is reported."""
        if step > self._before:
            return True
        if not self._has_said:
            self._has_said = True
            print(f"{self._name} keeps its values of the steps up to {self._before}, from before the restart")
        return False

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Log the metrics of a step, unless it has them."""
        if self.takes(step):
            self._write(data, step)
            self._record.logged(self._name, step)

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        self._tracker.log(data=data, step=step)


class WandbRun(OncePerStep):
    """wandb, which keeps the last step to itself until the next one begins, unless told that it is whole."""

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        self._tracker.log(data=data, step=step, commit=True)


class TensorboardRun(OncePerStep):
    """TensorBoard, which drops the steps that a run repeats when it is told where the run resumes.

    Args:
        validates_first: whether the first call logs the validation of the checkpoint from which the run resumes.
    """

    def __init__(self, name: str, tracker: Any, record: TrackerRecord, *, validates_first: bool) -> None:
        super().__init__(name, tracker, record)
        self._validates_first = validates_first
        self._is_first = True
        self._refused: int | None = None

    def takes(self, step: int) -> bool:
        """Whether a step is logged: all but the validation that was logged before the restart."""
        if not self._is_first:
            return step != self._refused
        self._is_first = False
        if step > self._before:
            return True
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # What SummaryWriter does with its argument purge_step.
        start = step + 1 if self._validates_first else step
        session = SessionLog(status=SessionLog.START)
        self._tracker.writer.file_writer.add_event(Event(step=start, session_log=session))
        self._refused = step if self._validates_first else None
        return not self._validates_first

    def _write(self, data: Mapping[str, Any], step: int) -> None:
        super()._write(data, step)
        # A run that is killed loses what TensorBoard still holds.
        self._tracker.writer.flush()


def record_file(config: Mapping[str, Any] | None) -> Path | None:
    """The file of the record, from the config that veRL gives its trackers; None without our replay buffer."""
    trainer = (config or {}).get("trainer") or {}
    sampler = (trainer.get("v1") or {}).get("sampler") or {}
    custom = sampler.get("custom_sampler") or {}
    if (custom.get("path"), custom.get("name")) != SAMPLER:
        return None
    return Path(sampler["sampler_kwargs"]["trackers"])


def prepare(
    names: Sequence[str], project: str, run_name: str, config: Mapping[str, Any], record: TrackerRecord
) -> bytes:
    """Do what makes veRL continue the runs of a record: set variables, and start those that take no variable.

    Returns the `kept_lines` of `continue_runs`.
    """
    if "mlflow" in names:
        _prepare_mlflow(project, record)
    if "trackio" in names:
        _start_trackio(project, run_name, config, record)
    return _lines_of_file_logger(project, run_name, record) if "file" in names else b""


def continue_runs(loggers: dict[str, Any], record: TrackerRecord, kept_lines: bytes, *, validates_first: bool) -> None:
    """Replace veRL's trackers by those that get no step twice, in place.

    Args:
        loggers: by name, as `Tracking.logger` has them.
        validates_first: whether the run validates before it trains.
    """
    for name, tracker in loggers.items():
        if (run := _run_of(name, tracker, record)) is None:
            continue
        if name == "file" and not kept_lines:
            # A file that begins anew has no steps.
            record.forget(name)
        record.begin(name, run)
        if name == "tensorboard":
            loggers[name] = TensorboardRun(name, tracker, record, validates_first=validates_first)
        else:
            loggers[name] = (WandbRun if name == "wandb" else OncePerStep)(name, tracker, record)
    if kept_lines:
        loggers["file"].fp.write(kept_lines)


def _run_of(name: str, tracker: Any, record: TrackerRecord) -> str | None:
    """What identifies the run that a tracker logs to, files by their place; None for trackers that start a new one."""
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
        # By itself mlflow puts artifacts of a local database into the working folder.
        mlflow.create_experiment(project, artifact_location=(record.file.parent / "mlflow").absolute().as_uri())


def _start_trackio(project: str, run_name: str, config: Mapping[str, Any], record: TrackerRecord) -> None:
    import trackio

    known = record.run("trackio")
    trackio.init(project=project, name=run_name, config=dict(config), resume="allow" if known else "never")
    # In a folder that several runs share, another one may have the same name.
    if known and _trackio_run() != known:
        trackio.init(project=project, name=run_name, config=dict(config), resume="never")


def _trackio_run() -> str:
    from trackio import context_vars

    return str(context_vars.current_run.get().id)


def _lines_of_file_logger(project: str, run_name: str, record: TrackerRecord) -> bytes:
    """What the file of veRL's file logger has of this run; veRL empties the file."""
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    file = Path(os.environ.get("VERL_FILE_LOGGER_PATH") or root / project / f"{run_name}.jsonl")
    if record.run("file") != os.path.relpath(file, record.file.parent) or not file.is_file():
        return b""
    content = file.read_bytes()
    # Without a line that a kill cut short.
    return content[: content.rfind(b"\n") + 1]
