"""Supervised fine-tuning of a model on a file of responses, by veRL's SFT trainer in separate processes.

Settings and a resumable call. `sft_responses` checks the file; `verl_ext.datasets.response_dataset` reads it for veRL.
"""

import importlib.util
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
from mmupt.baselines.training_folder import CHECKPOINTS, PARAMETERS, POLICY, record_training
from mmupt.baselines.training_settings import TrainingSettings
from mmupt.compose import as_override
from mmupt.console import Phase, emit, follow
from mmupt.hardware import CPU
from mmupt.runtime.export import merge
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, exclusive_run
from verl_ext.checkpoints import TRACKER, checkpoint_of
from verl_ext.files import replacing
from verl_ext.unknown_keys import is_number, is_whole, refuse_values

# Metrics of each update since the last start, written by veRL's FileLogger.
METRICS = "metrics.jsonl"
# Settings that change the policy by rounding errors only.
IGNORED_FOR_RESUME = ("micro_batch_tokens", "save_steps")


@dataclass(frozen=True, kw_only=True)
class SftSettings(TrainingSettings):
    """SFT settings. Each epoch drops the rows that do not fill its last batch; shuffling makes them differ per epoch.

    Args:
        steps: updates to train for; None trains for `epochs`.
        micro_batch_tokens: tokens per process and forward pass.
        warmup_share: share of all updates over which the learning rate rises from 0; it stays constant afterwards.
    """

    steps: int | None
    micro_batch_tokens: int
    warmup_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_values(
            self,
            {
                "steps": (
                    self.steps is None or is_whole(self.steps, 1),
                    "a whole number of at least 1, or null to train for epochs",
                ),
                "warmup_share": (
                    is_number(self.warmup_share, 0) and self.warmup_share < 1,
                    "a number from 0 to less than 1",
                ),
                "batch_size": (not self.batch_size % self.processes, f"a multiple of processes = {self.processes}"),
                "micro_batch_tokens": (
                    is_whole(self.micro_batch_tokens, self.max_length),
                    f"a whole number that is at least max_length = {self.max_length}",
                ),
            },
        )

    def steps_of(self, rows: int) -> int:
        """Number of updates on a set of `rows` rows."""
        return self.epochs * (rows // self.batch_size) if self.steps is None else self.steps


def train_sft(settings: SftSettings, model: str, file: Path, folder: Path) -> Path:
    """Train a model on the responses of `file` and return the Hugging Face folder of the policy, `folder / "model"`.

    `model` is a folder or hub name. The metrics of each update are also written to `folder`, for TensorBoard. After an
    interruption, the same call resumes from the last checkpoint; if the policy exists, it returns immediately.

    Raises:
        ValueError: `file` is missing or cannot be used, see `check_responses`, or `folder` holds a training with other
            settings, another model or other rows.
        BlockingIOError: another process is training into `folder`.
        subprocess.CalledProcessError: the training failed; its output says why.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing: the earlier stages of the method write it")
    folder = folder.absolute()
    policy, checkpoints = folder / POLICY, folder / CHECKPOINTS
    with exclusive_run(folder, folder / PARAMETERS):
        has_begun = policy.is_dir() or (checkpoints / TRACKER).is_file()
        record_training(folder, asdict(settings), model, file, has_begun, IGNORED_FOR_RESUME)
        if not policy.is_dir():
            rows = check_responses(file, model, settings)
            steps = settings.steps_of(rows)
            if _clean(checkpoints, rows // settings.batch_size, settings.processes) < steps:
                emit(Phase("train by SFT"))
                follow(folder / METRICS, steps)
                _run(settings, trainer_overrides(settings, model, file, folder, rows), folder)
            with replacing(policy) as growing:
                merge(checkpoint_of(checkpoints, steps), growing, str(steps))
                os.sync()
        # Checkpoints take several times the size of the policy and are no longer needed.
        shutil.rmtree(checkpoints, ignore_errors=True)
    return policy


def trainer_overrides(settings: SftSettings, model: str, file: Path, folder: Path, rows: int) -> list[str]:
    """Translate the settings into overrides of veRL's `sft_trainer_engine`; everything else keeps veRL's defaults.

    `rows` is the number of rows of `file`. The trainer writes only into `folder`.
    """
    steps = settings.steps_of(rows)
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
        "trainer.total_epochs": math.ceil(steps / (rows // settings.batch_size)),
        "trainer.total_training_steps": steps,
        "trainer.save_freq": settings.save_steps,
        # Keeps the last complete checkpoint while the next one is written.
        "trainer.max_ckpt_to_keep": 2,
        "trainer.logger": ["console", "tensorboard", "file"],
        "trainer.project_name": "mmupt",
        "trainer.experiment_name": folder.name,
        "trainer.device": settings.device,
        "trainer.n_gpus_per_node": settings.processes,
        # Hydra would create an output folder in the working directory.
        "hydra.run.dir": str(folder),
        "hydra.output_subdir": None,
        "hydra/job_logging": "stdout",
    }
    added: dict[str, Any] = {
        "data.min_pixels": settings.min_pixels,
        "data.max_pixels": settings.max_pixels,
        # The prompts already include it.
        "data.instruction": None,
        "data.seed": settings.seed,
        "data.cache_dir": str(folder / "rows"),
        **{f"data.apply_chat_template_kwargs.{name}": value for name, value in settings.chat_template_kwargs.items()},
    }
    if settings.device == "cpu":
        actor, cpu_model = CPU.actor_rollout_ref.actor, CPU.actor_rollout_ref.model
        attention = cpu_model.override_config.attn_implementation
        known |= {
            "model.use_remove_padding": cpu_model.use_remove_padding,
            "model.enable_gradient_checkpointing": cpu_model.enable_gradient_checkpointing,
            "engine.use_torch_compile": actor.fsdp_config.use_torch_compile,
            "optim.override_optimizer_config": OmegaConf.to_container(actor.optim.override_optimizer_config),
            "data.num_workers": CPU.data.dataloader_num_workers,
        }
        added["engine.mixed_precision"] = OmegaConf.to_container(actor.fsdp_config.mixed_precision)
    else:
        has_flash_attention = importlib.util.find_spec("flash_attn") is not None
        attention = "flash_attention_2" if has_flash_attention else "sdpa"
        known["model.use_remove_padding"] = has_flash_attention
        # The same as in GRPO (recipes/mmupt/config/base.yaml).
        known["model.use_fused_kernels"] = True
    added["model.override_config.attn_implementation"] = attention
    return [
        *(as_override(key, value) for key, value in known.items()),
        *(as_override(f"+{key}", value) for key, value in added.items()),
    ]


def _run(settings: SftSettings, overrides: list[str], folder: Path) -> None:
    cpu_variables = CPU.ray_kwargs.ray_init.runtime_env.env_vars if settings.device == "cpu" else {}
    environment = {
        **{name: str(value) for name, value in cpu_variables.items()},
        # Identifies the processes that a killed call leaves running. An enclosing run takes precedence.
        RUN_FOLDER_VARIABLE: str(folder),
        **os.environ,
        "TENSORBOARD_DIR": str(folder / "tensorboard"),
        "VERL_FILE_LOGGER_PATH": str(folder / METRICS),
        # The cached copy of the rows is removed together with the checkpoints.
        "HF_DATASETS_CACHE": str(folder / CHECKPOINTS / "rows"),
    }
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={settings.processes}"]
    command = [sys.executable, "-m", *launcher, "-m", "verl.trainer.sft_trainer", *overrides]
    subprocess.run(command, check=True, env=environment)


def _clean(checkpoints: Path, steps_in_an_epoch: int, processes: int) -> int:
    """Keep only the last complete checkpoint, fix it to resume exactly, and return its step; 0 if there is none."""
    tracker = checkpoints / TRACKER
    step = int(tracker.read_text()) if tracker.is_file() else 0
    last = checkpoint_of(checkpoints, step)
    for checkpoint in checkpoints.glob("global_step_*"):
        if checkpoint != last:
            shutil.rmtree(checkpoint)
    if step % steps_in_an_epoch == 0:
        # A data loader restored at the end of an epoch skips the next epoch.
        for state in last.glob("data_*.pt"):
            state.unlink()
    else:
        # All processes are at the same position in the epoch, and only the file of rank 0 is certain to be complete.
        for rank in range(1, processes):
            shutil.copyfile(last / "data_0.pt", last / f"data_{rank}.pt")
    return step
