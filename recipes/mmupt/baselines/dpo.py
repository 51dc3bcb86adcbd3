"""Direct preference optimization (DPO, Rafailov et al. 2023, arXiv 2305.18290) of a model on a file of pairs.

Settings, checks and a resumable call. `dpo_process` trains with TRL; `preference_pairs` checks and collates the pairs.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.version import Version

from mmupt.baselines.preference_pairs import check_pairs
from mmupt.baselines.training_folder import CHECKPOINTS, POLICY, record_training
from mmupt.baselines.training_settings import TrainingSettings, is_positive
from mmupt.console import Phase, emit
from verl_ext.checkpoints import MARKER
from verl_ext.unknown_keys import is_whole, refuse_values

# Oldest version whose DPOTrainer is known to train a vision-language model with transformers 5.9.
OLDEST_TRL = "1.16.0"
# TRL is installed separately from the other packages, see requirements-baselines.in.
TRL_FOLDER = Path(sys.prefix) / "baselines"


@dataclass(frozen=True, kw_only=True)
class DpoSettings(TrainingSettings):
    """DPO settings. The learning rate decays linearly to 0.

    Args:
        micro_batch_size: pairs per process and forward pass.
        beta: strength of the KL penalty towards the reference, which is the initial model.
    """

    micro_batch_size: int
    beta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_values(
            self,
            {
                "micro_batch_size": (is_whole(self.micro_batch_size, 1), "a whole number of at least 1"),
                "beta": (is_positive(self.beta), "a number above 0"),
            },
        )
        if self.device == "cpu" and self.processes > 1:
            raise ValueError(f"processes must be 1 on the CPU, not {self.processes}: only GPUs can share the model")
        if self.batch_size % (per_pass := self.micro_batch_size * self.processes):
            raise ValueError(
                f"batch_size must be a multiple of micro_batch_size x processes = {per_pass}, not {self.batch_size}"
            )


def train_dpo(settings: DpoSettings, model: str, file: Path, folder: Path) -> Path:
    """Train a model on the pairs of `file` and return the Hugging Face folder of the policy, `folder / "model"`.

    `model` is a folder or hub name; the policy keeps its weight names, dtypes and processor. The metrics of each step
    are written to `folder / "steps.jsonl"`. After an interruption, the same call resumes from the last complete
    checkpoint; if the policy exists, it returns immediately.

    Raises:
        ValueError: TRL is missing or too old, a row of `file` cannot be used (see `check_pairs`), or `folder` holds a
            training with other settings, another model or other rows.
        subprocess.CalledProcessError: the training failed; its output says why.
    """
    _check_trl()
    policy, checkpoints = folder / POLICY, folder / CHECKPOINTS
    has_begun = policy.is_dir() or any(checkpoints.glob(f"*/{MARKER}"))
    record_training(folder, asdict(settings), model, file, has_begun)
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
            # TRL reports usage to its authors by default.
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        emit(Phase("train by DPO"))
        subprocess.run([sys.executable, "-m", *module, str(folder)], check=True, env=environment)
    # Checkpoints take several times the size of the policy and are no longer needed.
    shutil.rmtree(checkpoints, ignore_errors=True)
    return policy


def trl_version() -> str | None:
    """The version of TRL that the training process will import; None if TRL is missing."""
    installed = distributions(name="trl", path=[str(TRL_FOLDER), *sys.path])
    return next((distribution.version for distribution in installed), None)


def _check_trl() -> None:
    version = trl_version()
    if version is None or Version(version) < Version(OLDEST_TRL):
        raise ValueError(
            f"DPO needs TRL {OLDEST_TRL} or newer, {version or 'none'} is installed: run `make setup` with Python 3.11 "
            f"or 3.12, or `pip install --no-deps --target {TRL_FOLDER} -r requirements-baselines.txt`"
        )
