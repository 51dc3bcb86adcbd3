"""Exports a veRL checkpoint to Hugging Face format with veRL's model merger."""

import json
import os
import subprocess
import sys
from pathlib import Path

# In a merged folder: the file that names the checkpoint, and the subfolder of the LoRA adapter.
MARKER = "global_step.txt"
ADAPTER = "lora_adapter"


def merge(checkpoint: Path, target: Path, mark: str) -> Path:
    """Merge the actor of a checkpoint into `target`, unless it already holds the checkpoint `mark`; return `target`.

    Raises:
        subprocess.CalledProcessError: the merger failed.
    """
    marker = target / MARKER
    if marker.is_file() and marker.read_text() == mark:
        return target
    # An interrupted merge must not be mistaken for the earlier one in the same folder.
    marker.unlink(missing_ok=True)
    merger = ["verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", checkpoint, "--target_dir", target]
    subprocess.run([sys.executable, "-m", *map(str, merger)], check=True)
    if (adapter := target / ADAPTER).is_dir():
        _merge_adapter(target, adapter)
    restore_expert_layout(target)
    make_readable(target)
    marker.write_text(mark)
    return target


def make_readable(folder: Path) -> None:
    """Give all files in a folder the default permissions of the umask.

    safetensors writes temporary files, readable by their owner only, and renames them.
    """
    os.umask(umask := os.umask(0))
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(file.stat().st_mode | (0o666 & ~umask))


def _merge_adapter(model: Path, adapter: Path) -> None:
    """Merge a LoRA adapter into the weights of `model`; veRL's merger writes them side by side."""
    from peft import PeftModel
    from transformers import AutoConfig
    from verl.utils.model import get_hf_auto_model_class

    base = get_hf_auto_model_class(AutoConfig.from_pretrained(model)).from_pretrained(model)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(model)


def restore_expert_layout(model: Path) -> None:
    """Restore the experts of a saved Qwen3-VL to the layout of the published models, (experts, inputs, outputs).

    vLLM reads no other layout. transformers transposes experts on loading, but not back on saving, because
    `Transpose(check_dims=True)` finds them in its own layout already (transformers/core_model_loading.py).
    """
    if json.loads((model / "config.json").read_text())["model_type"] != "qwen3_vl_moe":
        return
    from safetensors.torch import load_file, save_file

    for file in model.glob("*.safetensors"):
        tensors = {
            name: tensor.transpose(1, 2).contiguous() if ".mlp.experts." in name else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})


def model_folder(model: str, output: Path) -> str:
    """Return the folder or hub name from which vLLM can load a model.

    `model` may be a hub name, a Hugging Face folder, a run folder with an exported policy, or a `global_step_N` folder
    or its `actor` folder, which are merged into `output / "model"`.
    """
    folder = Path(model)
    if (folder / "model" / "config.json").is_file():
        return str(folder / "model")
    for actor in (folder / "actor", folder):
        if (actor / "fsdp_config.json").is_file():
            return str(merge(actor, output / "model", str(actor.absolute())))
    return model
