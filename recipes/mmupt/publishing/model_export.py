"""Exports the model of a run for the hub: weights, processor, tokenizer, generation settings and a card."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmupt.publishing import ExportError, public_name
from mmupt.publishing.hub_folder import CARD, writing
from mmupt.publishing.model_card import model_card
from mmupt.runtime.export import ADAPTER, MARKER
from mmupt.runtime.model_checks import problems_of_model
from mmupt.training.run_report import read_config
from verl_ext.checkpoints.best import link_or_copy
from verl_ext.files import write_atomically, write_json

# Suffixes of the files of a model folder to publish. No pickles, which can run code when they are loaded.
SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
# Files of the merged weights, which an adapter replaces by its own.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


def is_run(folder: Path) -> bool:
    """Whether a folder is the folder of a training run; raises ValueError as `read_config`."""
    return "actor_rollout_ref" in read_config(folder)


def export_model(run_folder: Path, target: Path, name: str, *, adapter: bool = False) -> None:
    """Write the model of a run into a folder for the hub, with weights as hard links if possible.

    Args:
        run_folder: folder of the run.
        target: folder to write.
        name: name of the repository, for the card.
        adapter: whether to publish the LoRA adapter instead of the merged weights.

    Raises:
        ExportError: the model or adapter is missing or incomplete, or `target` has files that no export made.
    """
    config = OmegaConf.load(run_folder / "config.yaml")
    assert isinstance(config, DictConfig)
    model = run_folder / "model"
    if not model.is_dir():
        raise ExportError(
            f"{run_folder} has no model: repeat its `mmupt train`, which finishes it. A run exports no model if it has "
            "no training steps, or if its best policy is the base model"
        )
    if problems := [*problems_of_model(str(model), "model", os.environ), *_problems_of(model, adapter)]:
        raise ExportError("; ".join(problems))
    with writing(target) as folder:
        for file in _published(model):
            if not (adapter and any(file.match(pattern) for pattern in WEIGHTS)):
                _place(file, folder)
        if adapter:
            for file in _published(model / ADAPTER):
                _place(file, folder)
            settings = folder / "adapter_config.json"
            base = {"base_model_name_or_path": public_name(str(config.actor_rollout_ref.model.path))}
            write_json(settings, json.loads(settings.read_text()) | base)
        if (plot := run_folder / "report.png").is_file():
            _place(plot, folder)
        write_atomically(folder / CARD, str(model_card(run_folder, config, name, adapter=adapter)))


def _problems_of(model: Path, adapter: bool) -> Iterator[str]:
    if adapter and not (model / ADAPTER / "adapter_model.safetensors").is_file():
        yield f"{model} has no adapter: the run trained all weights; leave out --adapter"
    if not [*model.glob("*.safetensors")]:
        yield f"{model} has no .safetensors weights, and other formats are not published"


def _published(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.name != MARKER)


def _place(file: Path, folder: Path) -> None:
    # Weights are linked to save space, small files copied because they may be edited.
    if file.suffix == ".safetensors":
        link_or_copy(str(file.resolve()), str(folder / file.name))
    else:
        shutil.copyfile(file, folder / file.name)
