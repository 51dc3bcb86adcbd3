"""Finds problems of settings, files and the machine at launch that would otherwise end a run after minutes or hours.

Every function yields one sentence per problem, with the key and the fix; the launcher reports all of them at once.
Does not import anything slow or write files.
"""

import glob
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from mmupt.hardware import joins_cluster, ray_folder
from verl_ext.datasets.mixture import mixture
from verl_ext.files import file_list, is_lfs_pointer
from verl_ext.import_check import problems_of_code

# Longest path of a Unix socket in bytes: sun_path has 108, including the terminating zero.
SOCKET_PATH = 107
# Longest socket paths of Ray below its folder, and of vLLM below the temporary folder (vllm/utils/network_utils.py,
# get_open_zmq_ipc_path).
RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
VLLM_SOCKET = "/00000000-0000-0000-0000-000000000000"


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

# Other keys whose value is a file or folder.
PATHS = (
    "actor_rollout_ref.model.lora_adapter_path",
    "actor_rollout_ref.rollout.multi_turn.function_tool_path",
    "actor_rollout_ref.rollout.multi_turn.tool_config_path",
    "data.function_tool_path",
    "data.tool_config_path",
    "trainer.resume_from_path",
)

# A model folder needs at least one file of each kind.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHTS = ("*.safetensors", "*.bin")
# Packages in site-packages that no worker imports, but that users' own files are often named after.
NEVER_IMPORTED = frozenset(("recipe", "scripts", "test", "tests", "tutorial"))


def problems_of_settings(config: DictConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the problems of a recipe that do not depend on its data."""
    yield from _problems_of_batches(config)
    yield from problems_of_loggers(config.trainer.logger, environ)
    yield from problems_of_code(config)
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


def problems_of_asking(model: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield problems that keep vLLM from serving a model on this machine; messages call its key `model`."""
    yield from problems_of_model(model, "model", environ)
    yield from problems_of_sockets(environ)


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
        ValueError: `data.generated_share` needs generated or other rows, but there are none.
    """
    data = config.data
    # Whether each kept row was generated.
    kept: list[bool] = []
    for file in file_list(data.train_files):
        left_out = set(dropped.get(file, ()))
        kept += [flag for row, flag in enumerate(_is_generated(file)) if row not in left_out]
    if 0 < data.train_max_samples < len(kept):
        # The same draw as `verl_ext.datasets.prompt_dataset`, which removes dropped rows first.
        draw = np.random.default_rng(data.seed)
        size = data.train_max_samples
        chosen = draw.choice(len(kept), size, replace=False).tolist() if data.shuffle else range(size)
        kept = [kept[row] for row in chosen]
    return len(kept) if data.generated_share is None else len(mixture(kept, data.generated_share, data.seed))


def _is_generated(file: str) -> list[bool]:
    with pq.ParquetFile(file) as opened:
        if "synthesis" not in opened.schema_arrow.names:
            return [False] * opened.metadata.num_rows
        return list(opened.read(columns=["synthesis"])["synthesis"].is_valid().to_pylist())


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


def _problems_of_paths(config: DictConfig) -> Iterator[str]:
    for key in PATHS:
        if (path := OmegaConf.select(config, key)) is not None and not Path(path).expanduser().exists():
            yield f"{key}={path}: there is no such file"


def problems_of_model(model: str, key: str, environ: Mapping[str, str], *, has_template: bool = False) -> Iterator[str]:
    """Yield problems that keep a model from being loaded and prompted.

    Args:
        model: a Hugging Face model folder or hub name.
        key: its key in the config, for messages.
        environ: determines the hub's cache, and whether downloads are allowed.
        has_template: whether the config gives a chat template.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            yield f"{key}={model}: there is no such folder, and a name on the hub is OWNER/NAME"
        else:
            yield from _problems_of_hub_name(model, key, environ)
        return
    if problem := _problem_of_pattern(folder):
        yield f"{key}={model}: {problem}"
    if not (folder / "config.json").is_file():
        yield f"{key}: {folder} is not a model folder: it has no config.json"
        return
    needed = {"tokenizer": TOKENIZER_FILES, "weights": WEIGHTS}
    if "vision_config" in json.loads((folder / "config.json").read_bytes()):
        needed["processor"] = PROCESSOR_FILES
    for kind, names in needed.items():
        if not any(any(folder.glob(name)) for name in names):
            yield f"{key}: {folder} has no {kind} ({' or '.join(names)}): copy it from the model it was made from"
    if not (has_template or _has_template(folder)):
        yield (
            f"{key}: {folder} has no chat template: copy chat_template.jinja from the model it was made from, or set "
            "actor_rollout_ref.model.custom_chat_template"
        )
    for file in sorted(one for name in WEIGHTS for one in folder.glob(name)):
        if is_lfs_pointer(file):
            yield f"{key}: {file} is a Git LFS pointer, not the weights: run `git lfs pull` in {folder}"
            return


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    configs = [folder / name for name in ("tokenizer_config.json", "processor_config.json")]
    return any(file.is_file() and json.loads(file.read_bytes()).get("chat_template") for file in configs)


def _problems_of_hub_name(model: str, key: str, environ: Mapping[str, str]) -> Iterator[str]:
    cache = hub_cache(environ)
    if any((cache / f"models--{model.replace('/', '--')}" / "snapshots").glob("*/config.json")):
        return
    if environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield (
            f"{key}={model} is not in {cache}, and HF_HUB_OFFLINE forbids downloads: give a folder, download it first "
            "(`hf download`), or set ray_kwargs.ray_init.runtime_env.env_vars.HF_HUB_OFFLINE=0"
        )
    elif not can_write(cache):
        yield f"{key}={model} cannot be downloaded into {cache}: set HF_HOME to a writable folder"


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder in which huggingface_hub keeps downloads."""
    home = environ.get("HF_HOME") or os.path.join(
        environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "~"), ".cache"), "huggingface"
    )
    return Path(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub"))


def problems_of_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield problems that keep Ray, vLLM and veRL from creating their sockets on this machine."""
    vllm = Path(environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir())
    places = [(vllm, VLLM_SOCKET, "TMPDIR or VLLM_RPC_BASE_PATH")]
    if not joins_cluster():
        places.insert(0, (ray_folder(), RAY_SOCKET, "TMPDIR or RAY_TMPDIR"))
    for folder, socket, variables in places:
        if (surplus := len(os.fsencode(f"{folder}{socket}")) - SOCKET_PATH) > 0:
            yield (
                f"{folder} is {surplus} bytes too long for the sockets in it: set {variables} to a shorter folder, "
                "such as /tmp"
            )
        elif not can_write(folder):
            yield f"{folder} is not writable: set {variables} to a writable folder"
    # veRL's path is fixed (vllm_rollout.py, zmq_handle).
    if not can_write(Path("/tmp")):
        yield "/tmp is not writable, but veRL sends weights to vLLM through a socket in it: make it writable"


def problems_of_working_directory() -> Iterator[str]:
    """Yield the modules of the working directory that Ray's workers would import instead of installed ones.

    Ray puts the launcher's working directory first in the `sys.path` of its workers (ray/_private/worker.py, connect),
    and has no setting to prevent it.
    """
    for path in sorted(Path.cwd().iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        file = path / "__init__.py" if path.suffix != ".py" else path
        if not file.is_file() or name in NEVER_IMPORTED:
            continue
        # Searches this process's `sys.path`, which does not contain the working directory.
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() != file.resolve():
            yield (
                f"{file} would hide {spec.origin} from Ray's workers, which import from the working directory first: "
                "rename it, or run the command in another folder"
            )


def _problems_of_folder(folder: Path) -> Iterator[str]:
    if not can_write(folder):
        yield f"mmupt.run_folder={folder} is not writable: choose another folder"
    if problem := _problem_of_pattern(folder):
        yield f"mmupt.run_folder={folder}: {problem}, because vLLM loads the trained model from it"


def _problem_of_pattern(folder: Path) -> str | None:
    # vllm/model_executor/model_loader/default_loader.py, _prepare_weights.
    if glob.escape(str(folder)) == str(folder):
        return None
    return "vLLM reads the path of a model as a glob pattern: choose a folder without [, * and ?"


def can_write(folder: Path) -> bool:
    """Return whether files can be created in a folder, or the folder itself if it does not exist."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
