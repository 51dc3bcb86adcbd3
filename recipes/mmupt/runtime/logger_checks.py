"""Checks the loggers of a recipe: their packages and logins."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from verl_ext.files import file_list


class Logger(NamedTuple):
    """A value of `trainer.logger`.

    module: the module that veRL imports for it.
    variables: environment variables, any of which is a login; empty if no login is needed.
    offline: a variable and its values that make a login unnecessary.
    files: files that may hold a login.
    fix: how to log in, or do without.
    """

    module: str | None = None
    variables: tuple[str, ...] = ()
    offline: tuple[str, tuple[str, ...]] = ("", ())
    files: tuple[str, ...] = ()
    fix: str = ""


# veRL's `Tracking.supported_backend` (verl/utils/tracking.py), and "tracking", its older name for wandb.
LOGGERS = {
    "console": Logger(),
    "file": Logger(),
    "tensorboard": Logger("tensorboard"),
    "wandb": Logger(
        "wandb",
        ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"),
        ("WANDB_MODE", ("offline", "dryrun", "disabled")),
        ("$NETRC", "$HOME/.netrc", "$HOME/_netrc"),
        "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline",
    ),
    "mlflow": Logger("mlflow"),
    "swanlab": Logger(
        "swanlab",
        ("SWANLAB_API_KEY",),
        ("SWANLAB_MODE", ("local", "offline", "disabled")),
        ("$SWANLAB_SAVE_DIR/.netrc", "$HOME/.swanlab/.netrc"),
        "run `swanlab login`, set SWANLAB_API_KEY, or set SWANLAB_MODE=offline",
    ),
    "vemlp_wandb": Logger(
        "volcengine_ml_platform",
        ("VOLC_ACCESS_KEY_ID",),
        fix="set VOLC_ACCESS_KEY_ID, VOLC_SECRET_ACCESS_KEY and MLP_TRACKING_REGION",
    ),
    "clearml": Logger(
        "clearml",
        ("CLEARML_API_ACCESS_KEY",),
        ("CLEARML_OFFLINE_MODE", ("1", "true")),
        ("$CLEARML_CONFIG_FILE", "$HOME/clearml.conf"),
        "run `clearml-init`, set CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or set CLEARML_OFFLINE_MODE=1",
    ),
    "trackio": Logger("trackio"),
    "rl_insight": Logger("rl_insight"),
}
LOGGERS["tracking"] = LOGGERS["wandb"]


def problems_of_loggers(loggers: str | Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the loggers that veRL would refuse, or fail to log in to, only after loading everything."""
    for name in file_list(loggers):
        logger = LOGGERS.get(name)
        if logger is None:
            yield f"trainer.logger: {name!r} is not one of {', '.join(LOGGERS)}"
        elif logger.module is not None and not _is_installed(logger.module):
            yield (
                f"trainer.logger: {name} needs the package {logger.module}, which is not installed: run "
                f"`{install_command(logger.module)}`, or set trainer.logger=[console,tensorboard]"
            )
        elif logger.variables and not _can_log_in(logger, environ):
            yield f"trainer.logger: {name} has no login: {logger.fix}"


def install_command(package: str) -> str:
    """Return the command that installs a package into this environment, by pip or else uv."""
    installer = "pip install" if _is_installed("pip") else "uv pip install"
    return f"{sys.executable} -m {installer} {package}"


def _is_installed(module: str) -> bool:
    """Return whether a module can be imported; a plain folder of that name, such as wandb's logs, does not count."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def _can_log_in(logger: Logger, environ: Mapping[str, str]) -> bool:
    variable, values = logger.offline
    if environ.get(variable, "").lower() in values or any(environ.get(name) for name in logger.variables):
        return True
    # A path with an unset variable stays unexpanded and does not exist.
    return any(Path(Template(file).safe_substitute(environ)).is_file() for file in logger.files)
