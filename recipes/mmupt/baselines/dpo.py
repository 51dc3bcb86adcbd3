"""Direct preference optimization (DPO, Rafailov et al. 2023, arXiv 2305.18290) of a model on a file of pairs.

Here are the settings, the checks and the call that can be repeated; the training itself, on TRL, is in `dpo_process`,
and what a file of pairs is in `pairs`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.version import Version

from mmupt.baselines.preference_pairs import check_pairs
from verl_ext.checkpoints import MARKER

# The oldest whose DPOTrainer is known to train a vision-language model with transformers 5.9.
OLDEST_TRL = "1.16.0"
# TRL lies apart from the other packages, see requirements-baselines.in.
TRL_FOLDER = Path(sys.prefix) / "baselines"
# What the process reads, and what another call must be the same in.
PARAMETERS = "parameters.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class DpoSettings:
    """How to train.

    Args:
        epochs: passes over the pairs.
        batch_size: pairs of a step, over all processes.
        micro_batch_size: pairs that a process has in memory at a time.
        beta: how much it costs to move away from the model that training starts from, the reference.
        learning_rate: of the first step; it falls to 0 in a straight line.
        max_length: tokens of a prompt, its images and a response; a longer pair is refused.
        min_pixels, max_pixels: into which images are scaled, as the responses were asked for; None for nothing.
        save_steps: steps between checkpoints.
        seed: of the order of pairs.
        device: cpu or cuda.
        processes: one a GPU, which share the model among them; on the CPU there is one.
    """

    epochs: int
    batch_size: int
    micro_batch_size: int
    beta: float
    learning_rate: float
    max_length: int
    min_pixels: int | None
    max_pixels: int | None
    save_steps: int
    seed: int
    device: str
    processes: int = 1

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "micro_batch_size", "beta", "learning_rate", "max_length", "save_steps")
        for name in (*positive, "processes"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} must be more than 0, not {value}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not {self.device!r}")
        if self.device == "cpu" and self.processes > 1:
            raise ValueError(f"processes must be 1 on the CPU, not {self.processes}: more share the model among GPUs")
        if self.batch_size % (at_a_time := self.micro_batch_size * self.processes):
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size x processes = {at_a_time}, not {self.batch_size}"
            )

    @property
    def accumulated(self) -> int:
        """Micro-batches that a process takes for one step."""
        return self.batch_size // (self.micro_batch_size * self.processes)


def train_dpo(settings: DpoSettings, model: str, file: Path, folder: Path) -> Path:
    """Train a model on the pairs of `file` and return the Hugging Face folder of the policy, `folder / "model"`.

    `model` is a folder or hub name; the policy has its weights' names and types and its processor. `folder` also gets
    `steps.jsonl`, what was measured in each step. The same call, after an interruption, continues from the last whole
    checkpoint and trains as if nothing had happened; once the policy is there, it returns at once.

    Raises:
        ValueError: TRL is missing or too old, a row of `file` cannot be used (see `check_pairs`), or `folder` has
            another training.
        subprocess.CalledProcessError: the training failed; it has said why.
    """
    _check_trl()
    policy, checkpoints = folder / "model", folder / CHECKPOINTS
    _check_parameters(settings, model, file, folder / PARAMETERS)
    if not policy.is_dir():
        check_pairs(file, alike=settings.processes > 1)
        for checkpoint in checkpoints.glob("checkpoint-*"):
            if not (checkpoint / MARKER).is_file():
                shutil.rmtree(checkpoint)
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={settings.processes}", "-m"]
        module = [*(launcher if settings.processes > 1 else []), "mmupt.baselines.dpo_process"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TRL_FOLDER), os.environ.get("PYTHONPATH")])),
            # TRL would tell its authors of every training.
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        subprocess.run([sys.executable, "-m", *module, str(folder)], check=True, env=environment)
    # They are several times the size of the policy, and nothing continues from them any more.
    shutil.rmtree(checkpoints, ignore_errors=True)
    return policy


def trl_version() -> str | None:
    """The version of TRL that the process will import; None for none."""
    found = distributions(name="trl", path=[str(TRL_FOLDER), *sys.path])
    return next((one.version for one in found), None)


def _check_trl() -> None:
    found = trl_version()
    if found is None or Version(found) < Version(OLDEST_TRL):
        raise ValueError(
            f"DPO needs TRL {OLDEST_TRL} or newer, {found or 'none'} is installed: run `make setup` with Python 3.11 "
            f"or 3.12, or `pip install --no-deps --target {TRL_FOLDER} -r requirements-baselines.txt`"
        )


def _check_parameters(settings: DpoSettings, model: str, file: Path, written: Path) -> None:
    parameters: dict[str, Any] = {
        "settings": asdict(settings),
        "model": model,
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    if not written.is_file():
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(parameters, indent=1))
    elif (found := json.loads(written.read_text())) != parameters:
        both = [{**one, **one["settings"]} for one in (found, parameters)]
        other = [name for name in both[1] if both[0].get(name) != both[1][name] and name != "settings"]
        raise ValueError(
            f"{written.parent} has a training with another {', '.join(other)}: delete the folder, or name another"
        )
