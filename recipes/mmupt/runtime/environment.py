"""Environment variables of a run, which keep caches and logger output in the run folder instead of the user's home.

Downloads from the Hugging Face hub stay in the user's cache (HF_HOME). Variables that are already set keep their
values; with XDG_CACHE_HOME or VLLM_CACHE_ROOT, for example, several runs share compiled code.
"""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmupt.hardware import joins_cluster
from mmupt.runtime.folder_checks import can_write
from mmupt.runtime.model_checks import hub_cache
from verl_ext.files import file_list, write_atomically

CACHE = "cache"
# The `datasets` library copies parquet files here: as large as the data, and useless after training.
COPIES = "datasets"


def cache_variables(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make libraries cache in a folder, without those already set.

    On a joined cluster, the nodes keep their own caches except for copies of the data.
    """
    cache = folder / CACHE
    variables = {"HF_DATASETS_CACHE": cache / COPIES}
    if not joins_cluster():
        variables |= {
            "HF_HOME": hub_cache({**environ, "HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": ""}).parent,
            "HF_MODULES_CACHE": cache / "huggingface" / "modules",
            # Respected by vLLM, matplotlib and torch.
            "XDG_CACHE_HOME": cache,
            "TORCHINDUCTOR_CACHE_DIR": cache / "inductor",
            "TRITON_HOME": cache,
            "FLASHINFER_WORKSPACE_BASE": cache,
            "CUDA_CACHE_PATH": cache / "nv",
        }
        if not can_write(Path(environ.get("HOME", "/"))):
            variables |= {"XDG_CONFIG_HOME": cache / "config", "HF_XET_CACHE": cache / "huggingface" / "xet"}
    return {name: str(value) for name, value in variables.items() if not environ.get(name)}


def logger_variables(loggers: str | Sequence[str], folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make the loggers of `trainer.logger` write into a folder, without those already set.

    An id saved in the folder makes wandb and SwanLab treat all starts of a run as one run. `verl_ext.trackers.runs`
    does so for other trackers.
    """
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "SWANLAB_LOG_DIR": str(folder / "swanlab"),
        "TRACKIO_DIR": str(folder / "trackio"),
        "VERL_FILE_LOGGER_ROOT": str(folder),
    }
    names = set(file_list(loggers))
    if {"wandb", "tracking"} & names:
        variables |= {
            "WANDB_DIR": str(folder),
            "WANDB_CACHE_DIR": str(folder / CACHE / "wandb"),
            "WANDB_DATA_DIR": str(folder / CACHE / "wandb"),
            "WANDB_RUN_ID": _run_id(folder / "wandb" / "run_id"),
            "WANDB_RESUME": "allow",
            # Seconds between writes to the run's file, 15 by default; a kill loses what has not been written.
            "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "0.1",
        }
    if "swanlab" in names:
        variables |= {"SWANLAB_RUN_ID": _run_id(folder / "swanlab" / "run_id"), "SWANLAB_RESUME": "allow"}
    return {name: value for name, value in variables.items() if not environ.get(name)}


def _run_id(file: Path) -> str:
    if not file.is_file():
        # SwanLab before 0.8 accepts ids of 21 characters only.
        write_atomically(file, secrets.token_hex(11)[:21])
    return file.read_text()


def own_ray_token(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a token for a Ray cluster started here, if Ray could not write one to `~/.ray`."""
    file = Path(environ.get("HOME", "/"), ".ray", "auth_token")
    named = any(environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if named or joins_cluster() or file.is_file() or can_write(file.parent):
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def visible_gpu_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that lets veRL's workers start if Slurm names a job's GPUs in two variables.

    Unless gres.conf lists a node's GPUs, Slurm sets AMD's ROCR_VISIBLE_DEVICES in addition to CUDA_VISIBLE_DEVICES, and
    veRL refuses the combination (verl/single_controller/base/worker.py). NVIDIA's driver and the CPU read only the
    latter, so the former becomes empty.
    """
    import torch

    both = environ.get("ROCR_VISIBLE_DEVICES") and environ.get("CUDA_VISIBLE_DEVICES")
    return {"ROCR_VISIBLE_DEVICES": ""} if both and torch.version.hip is None else {}


def use_folder(folder: Path) -> None:
    """Make this process and its children cache in a folder. Call before importing vLLM, Ray or matplotlib."""
    os.environ.update(cache_variables(folder, os.environ))
    os.environ.update(own_ray_token(os.environ))


def remove_copies(folder: Path, rows: Path) -> None:
    """Remove the copies of the data that training left in the run folder: those of `datasets`, and `rows`.

    `rows` is `data.cache_dir`, which is kept if it is outside the run folder.
    """
    shutil.rmtree(folder / CACHE / COPIES, ignore_errors=True)
    if folder in rows.parents:
        shutil.rmtree(rows, ignore_errors=True)
