"""Supervised fine-tuning of a model on a file of responses, by veRL's own SFT trainer in processes of its own.

Here are the settings and the call that can be repeated. What a file of responses is, is in `responses`; what veRL makes
of a row in `verl_ext.datasets.response_dataset`. Which responses a method keeps is not here.
"""

import hashlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmupt.baselines.sft_responses import check_responses
from mmupt.compose import as_override
from mmupt.evaluation.generation import CPU
from mmupt.evaluation.response_files import write_atomically
from mmupt.runtime.export import merge
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, sole_run
from verl_ext.checkpoints import TRACKER, checkpoint_of

# What another call must be the same in, once there is something to continue.
PARAMETERS = "parameters.json"
CHECKPOINTS = "checkpoints"
# Settings on which the policy does not depend, but for the last digits.
WITHOUT_CONSEQUENCE = ("micro_batch_tokens", "save_steps")


@dataclass(frozen=True)
class SftSettings:
    """How to train.

    Args:
        epochs: passes over the rows; those that are left over when all batches are full are skipped, others each time.
        steps: updates instead of passes; None for as many as `epochs` take.
        batch_size: rows of an update, over all processes.
        micro_batch_tokens: tokens that a process has in memory at a time.
        learning_rate: constant, after warming up.
        warmup_share: of all updates, those in which the learning rate rises from 0.
        max_length: tokens of a prompt, its images, a response and the end of its turn; a longer row is refused.
        min_pixels, max_pixels: into which images are scaled when they are read; None for no limit but the processor's.
        save_steps: updates between checkpoints.
        seed: of the order of rows.
        device: cpu or cuda.
        processes: one a GPU of this machine, which share the model among them.

    Raises:
        ValueError: a value that cannot be, naming it.
    """

    epochs: int
    steps: int | None
    batch_size: int
    micro_batch_tokens: int
    learning_rate: float
    warmup_share: float
    max_length: int
    min_pixels: int | None
    max_pixels: int | None
    save_steps: int
    seed: int
    device: str
    processes: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "max_length", "save_steps", "processes"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} must be more than 0, not {value}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be more than 0, or null for as many as epochs take, not {self.steps}")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share must be from 0 to less than 1, not {self.warmup_share}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not {self.device!r}")
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size must be a multiple of processes = {self.processes}, not {self.batch_size}")
        if self.micro_batch_tokens < self.max_length:
            raise ValueError(
                f"micro_batch_tokens must hold a row of max_length = {self.max_length} tokens, not "
                f"{self.micro_batch_tokens}"
            )

    @property
    def limits(self) -> dict[str, int]:
        """`min_pixels` and `max_pixels`, those of them that are not None."""
        both = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {name: value for name, value in both.items() if value is not None}

    def steps_of(self, rows: int) -> int:
        """Updates that are made with so many rows."""
        return self.epochs * (rows // self.batch_size) if self.steps is None else self.steps


def train_sft(settings: SftSettings, model: str, file: Path, folder: Path) -> Path:
    """Train a model on the responses of `file` and return the Hugging Face folder of the policy, `folder / "model"`.

    `model` is a folder or hub name. `folder` also gets what was measured in each update, for TensorBoard. The same
    call, after an interruption, continues from the last checkpoint; once the policy is there, it returns at once.

    Raises:
        ValueError: `file` is missing or cannot be used, see `check_responses`, or `folder` has another training.
        BlockingIOError: another process is training into `folder`.
        subprocess.CalledProcessError: the training failed; it has said why.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing: it is what the stages before leave")
    folder = folder.absolute()
    policy, checkpoints, growing = folder / "model", folder / CHECKPOINTS, folder / "model.part"
    with sole_run(folder, folder / PARAMETERS):
        _check_parameters(settings, model, file, folder)
        if not policy.is_dir():
            rows = check_responses(file, model, settings.limits, settings.max_length, at_least=settings.batch_size)
            steps = settings.steps_of(rows)
            if _clean(checkpoints, rows // settings.batch_size, settings.processes) < steps:
                _run(settings, trainer_overrides(settings, model, file, folder, rows), folder)
            merge(checkpoint_of(checkpoints, steps), growing, str(steps))
            os.sync()
            growing.rename(policy)
        # They are several times the size of the policy, and nothing continues from them any more.
        shutil.rmtree(checkpoints, ignore_errors=True)
    return policy


def trainer_overrides(settings: SftSettings, model: str, file: Path, folder: Path, rows: int) -> list[str]:
    """The settings as overrides of veRL's `sft_trainer_engine`; all else is as veRL has it.

    `rows` is how many `file` has, and `folder` gets all that the trainer writes.
    """
    steps, in_an_epoch = settings.steps_of(rows), rows // settings.batch_size
    known: dict[str, Any] = {
        "data.train_files": str(file.absolute()),
        "data.custom_cls.path": "pkg://verl_ext.datasets.response_dataset",
        "data.custom_cls.name": "ResponseDataset",
        "data.train_batch_size": settings.batch_size,
        "data.max_token_len_per_gpu": settings.micro_batch_tokens,
        "data.max_length": settings.max_length,
        "model.path": model,
        "engine.strategy": "fsdp2",
        "optim.lr": settings.learning_rate,
        "optim.lr_warmup_steps_ratio": settings.warmup_share,
        "trainer.default_local_dir": str(folder / CHECKPOINTS),
        "trainer.total_epochs": math.ceil(steps / in_an_epoch),
        "trainer.total_training_steps": steps,
        "trainer.save_freq": settings.save_steps,
        # The last whole one stays while the next is written.
        "trainer.max_ckpt_to_keep": 2,
        "trainer.logger": ["console", "tensorboard"],
        "trainer.project_name": "mmupt",
        "trainer.experiment_name": folder.name,
        "trainer.device": settings.device,
        "trainer.n_gpus_per_node": settings.processes,
        # Hydra would leave a folder of its own in the working directory.
        "hydra.run.dir": str(folder),
        "hydra.output_subdir": None,
        "hydra/job_logging": "stdout",
    }
    added: dict[str, Any] = {
        "data.min_pixels": settings.min_pixels,
        "data.max_pixels": settings.max_pixels,
        # Prompts are whole as they are.
        "data.instruction": None,
        "data.seed": settings.seed,
        "data.cache_dir": str(folder / "rows"),
    }
    if settings.device == "cpu":
        actor, of_model = CPU.actor_rollout_ref.actor, CPU.actor_rollout_ref.model
        attention = of_model.override_config.attn_implementation
        known |= {
            "model.use_remove_padding": of_model.use_remove_padding,
            "model.enable_gradient_checkpointing": of_model.enable_gradient_checkpointing,
            "engine.use_torch_compile": actor.fsdp_config.use_torch_compile,
            "optim.override_optimizer_config": OmegaConf.to_container(actor.optim.override_optimizer_config),
            "data.num_workers": CPU.data.dataloader_num_workers,
        }
        added["engine.mixed_precision"] = OmegaConf.to_container(actor.fsdp_config.mixed_precision)
    else:
        packed = importlib.util.find_spec("flash_attn") is not None
        attention = "flash_attention_2" if packed else "sdpa"
        known["model.use_remove_padding"] = packed
        if not packed:
            # Micro-batches are padded to their longest sequence then, so that few tokens may become many.
            known["data.max_token_len_per_gpu"] = settings.max_length
    added["model.override_config.attn_implementation"] = attention
    return [
        *(as_override(key, value) for key, value in known.items()),
        *(as_override(f"+{key}", value) for key, value in added.items()),
    ]


def _run(settings: SftSettings, overrides: list[str], folder: Path) -> None:
    of_cpu = CPU.ray_kwargs.ray_init.runtime_env.env_vars if settings.device == "cpu" else {}
    environment = {
        **{name: str(value) for name, value in of_cpu.items()},
        # By which what a killed call has left running is found: by the run that this call is part of, or by this one.
        RUN_FOLDER_VARIABLE: str(folder),
        **os.environ,
        "TENSORBOARD_DIR": str(folder / "tensorboard"),
        # The rows once more, as they are read: they go with the checkpoints.
        "HF_DATASETS_CACHE": str(folder / CHECKPOINTS / "rows"),
    }
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={settings.processes}"]
    command = [sys.executable, "-m", *launcher, "-m", "verl.trainer.sft_trainer", *overrides]
    subprocess.run(command, check=True, env=environment)


def _clean(checkpoints: Path, steps_in_an_epoch: int, processes: int) -> int:
    """Make veRL's trainer continue as if it had not been interrupted; return the step of its last checkpoint, 0: none.

    Checkpoints that are not whole, or not the last, are removed.
    """
    tracker = checkpoints / TRACKER
    step = int(tracker.read_text()) if tracker.is_file() else 0
    last = checkpoint_of(checkpoints, step)
    for checkpoint in checkpoints.glob("global_step_*"):
        if checkpoint != last:
            shutil.rmtree(checkpoint)
    if step % steps_in_an_epoch == 0:
        # A data loader that is restored at the end of an epoch would pass the next one over.
        for state in last.glob("data_*.pt"):
            state.unlink()
    else:
        # Where in an epoch it was is the same in all processes; only that of the first is sure to be whole.
        for rank in range(1, processes):
            shutil.copyfile(last / "data_0.pt", last / f"data_{rank}.pt")
    return step


def _check_parameters(settings: SftSettings, model: str, file: Path, folder: Path) -> None:
    """Note what is trained in `folder`; ValueError where something else has left a checkpoint or a policy there."""
    written, digest = folder / PARAMETERS, hashlib.sha256(file.read_bytes()).hexdigest()
    of_settings = {name: value for name, value in asdict(settings).items() if name not in WITHOUT_CONSEQUENCE}
    parameters = {**of_settings, "model": model, "rows of the file": digest}
    is_begun = (folder / "model").is_dir() or (folder / CHECKPOINTS / TRACKER).is_file()
    if is_begun and (found := json.loads(written.read_text())) != parameters:
        other = [name for name, value in parameters.items() if found.get(name) != value]
        raise ValueError(f"{folder} has a training with another {', '.join(other)}: delete the folder, or name another")
    write_atomically(written, json.dumps(parameters, indent=1).encode())
