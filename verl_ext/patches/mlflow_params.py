"""Patch `verl.utils.tracking._compute_mlflow_params_from_objects`: a continued run keeps its parameters.

mlflow refuses to change a parameter of a run, and veRL then continues without mlflow. Remove when veRL logs only new
parameters.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., dict[str, Any]], params: Any) -> dict[str, Any]:
    """Return the parameters that the active run does not have."""
    import mlflow

    run = mlflow.active_run()
    known = mlflow.get_run(run.info.run_id).data.params if run else {}
    return {name: value for name, value in original(params).items() if name not in known}
