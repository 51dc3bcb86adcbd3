"""Patch `verl.utils.tracking.Tracking.__init__`: a restart continues the run of each tracker.

At a restart, veRL starts new runs in mlflow and trackio, truncates the file of its file logger, and logs repeated steps
a second time. It also continues without mlflow if mlflow does not start, which is an error here. Applies only to
configs with our replay buffer. Remove when veRL continues the runs of its trackers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from verl_ext.trackers.runs import TrackerRecord, continue_runs, prepare, record_file


def patched(
    original: Callable[..., Any],
    tracking: Any,
    project_name: str,
    experiment_name: str,
    default_backend: str | list[str] = "console",
    config: Mapping[str, Any] | None = None,
) -> None:
    """Start the trackers as veRL does and continue their runs; RuntimeError if mlflow does not start."""
    file = record_file(config)
    if file is None or config is None:
        original(tracking, project_name, experiment_name, default_backend, config)
        return
    names = [default_backend] if isinstance(default_backend, str) else list(default_backend)
    record = TrackerRecord(file)
    kept_lines = prepare(names, project_name, experiment_name, config, record)
    original(tracking, project_name, experiment_name, default_backend, config)
    if "mlflow" in names and "mlflow" not in tracking.logger:
        raise RuntimeError(
            "mlflow did not start, its error is in the log above: mend it, or leave it out of trainer.logger"
        )
    continue_runs(
        tracking.logger, record, kept_lines, validates_first=bool(config["trainer"].get("val_before_train", True))
    )
