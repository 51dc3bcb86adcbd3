"""Checks a model folder or hub name: whether the model can be loaded, prompted and served."""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmupt.runtime.folder_checks import can_write, problems_of_sockets
from verl_ext.files import is_lfs_pointer

# A model folder needs at least one file of each kind.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHTS = ("*.safetensors", "*.bin")


def problems_of_serving(model: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield problems that keep vLLM from serving a model on this machine; messages call its key `model`."""
    yield from problems_of_model(model, "model", environ)
    yield from problems_of_sockets(environ)


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
    if problem := problem_of_pattern(folder):
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


def problem_of_pattern(folder: Path) -> str | None:
    # vllm/model_executor/model_loader/default_loader.py, _prepare_weights.
    if glob.escape(str(folder)) == str(folder):
        return None
    return "vLLM reads the path of a model as a glob pattern: choose a folder without [, * and ?"
