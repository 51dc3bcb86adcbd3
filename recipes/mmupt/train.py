"""Train a recipe: compose and check it, make its data, run veRL's trainer, export the policy, report.

    python -m recipes.mmupt.train mmupt_tiny trainer.total_training_steps=3

Everything lands in `mmupt.run_folder`. The same command after an interruption continues where it stopped: training from
its last checkpoint, and every later stage that has not left its result behind. The training itself is
`verl.trainer.main_ppo.run_ppo`, as is.
"""

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipes.mmupt.compose import RecipeError, load_recipe, recipes
from recipes.mmupt.leftovers import RUN_FOLDER_VARIABLE, sole_run
from recipes.mmupt.report import write_report
from verl_ext.checkpoints import checkpoint_of, last_whole_step, repair_tracker


def main() -> None:
    """Run the recipe and the overrides of the command line."""
    parser = argparse.ArgumentParser(description="Train a recipe.")
    parser.add_argument("recipe", nargs="?", default="mmupt_tiny", help="a name that --list shows")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, key=value")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    arguments = parser.parse_args()
    if arguments.list:
        for name, summary in recipes().items():
            print(f"{name:20} {summary}")
        return
    try:
        run(arguments.recipe, arguments.overrides)
    except (RecipeError, BlockingIOError) as error:
        sys.exit(f"error: {error}")


def run(recipe: str, overrides: list[str]) -> None:
    """Run all stages of a recipe.

    RecipeError for what can be known to fail before anything starts; BlockingIOError where the folder has a live run.
    """
    config = prepare(recipe, overrides)
    run_folder = Path(config.mmupt.run_folder)
    log = run_folder / "logs" / "train.log"
    with sole_run(run_folder, log), _log_to(log):
        OmegaConf.save(config, run_folder / "config.yaml")
        if repair_tracker(Path(config.trainer.default_local_dir)) < (
            config.trainer.total_training_steps or sys.maxsize
        ):
            train(config)
        model = export(config)
        if config.mmupt.evaluation_files is not None:
            evaluate(config, config.actor_rollout_ref.model.path, "before")
            evaluate(config, model, "after")
            print(write_report(run_folder, config.mmupt.report_note))
            print(f"The report is in {run_folder / 'report.md'}")
        print(f"The trained policy is in {model}")


def prepare(recipe: str, overrides: list[str]) -> DictConfig:
    """Compose a recipe for this machine, make its data set if it can, and check that nothing is missing."""
    config, choices = load_recipe(recipe, overrides)
    gpus = count_gpus()
    if config.trainer.device == "cpu" and gpus and not any(item.startswith("hardware=") for item in overrides):
        config, choices = load_recipe(recipe, [*overrides, "hardware=gpu_1x80gb"])
    config.mmupt.run_folder = os.path.abspath(config.mmupt.run_folder)
    environment = {
        "TENSORBOARD_DIR": f"{config.mmupt.run_folder}/tensorboard",
        RUN_FOLDER_VARIABLE: config.mmupt.run_folder,
    }
    for name, value in environment.items():
        OmegaConf.update(config, f"ray_kwargs.ray_init.runtime_env.env_vars.{name}", value, force_add=True)
    os.environ.update(config.ray_kwargs.ray_init.runtime_env.env_vars)
    _check_hardware(config, choices, gpus)
    _use_available_attention(config)
    if config.mmupt.dataset is not None:
        folder = Path("datasets") / config.mmupt.dataset
        importlib.import_module(f"data.{config.mmupt.dataset}").prepare(folder)
    _check_files(config)
    return config


def train(config: DictConfig) -> None:
    """Run veRL's own validation of the config and its trainer, in this process and the Ray cluster that it starts."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    try:
        run_ppo(config, task_runner_class=TaskRunnerV1)
    finally:
        ray.shutdown()


def export(config: DictConfig) -> Path:
    """Merge the last checkpoint into a Hugging Face folder, `<run_folder>/model`, by veRL's own merger."""
    step = last_whole_step(Path(config.trainer.default_local_dir))
    target = Path(config.mmupt.run_folder) / "model"
    marker = target / "global_step.txt"
    if marker.is_file() and marker.read_text() == str(step):
        return target
    checkpoint = checkpoint_of(Path(config.trainer.default_local_dir), step) / "actor"
    merge = ["verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", checkpoint, "--target_dir", target]
    subprocess.run([sys.executable, "-m", *map(str, merge)], check=True)
    marker.write_text(str(step))
    return target


def evaluate(config: DictConfig, model: str | Path, name: str) -> None:
    """Answer `mmupt.evaluation_files` as training samples, and greedily, into `<run_folder>/evaluation/NAME.jsonl`.

    In a process of its own, as vLLM keeps its memory for as long as a process lives.
    """
    rollout, data = config.actor_rollout_ref.rollout, config.data
    options = {
        "model": model,
        "output": Path(config.mmupt.run_folder) / "evaluation" / f"{name}.jsonl",
        "samples": config.mmupt.evaluation_samples,
        "temperature": rollout.temperature,
        "top-p": rollout.top_p,
        "max-tokens": data.max_response_length,
        "max-model-len": rollout.max_model_len,
        "instruction": data.instruction,
        "min-pixels": data.min_pixels,
        "max-pixels": data.max_pixels,
        "dtype": rollout.dtype,
        "device": config.trainer.device,
    }
    command = [sys.executable, "-m", "recipes.mmupt.evaluate", "--data", *_as_list(config.mmupt.evaluation_files)]
    for option, value in options.items():
        if value is not None:
            command += [f"--{option}", str(value)]
    subprocess.run(command, check=True)


def count_gpus() -> int:
    """Return the number of GPUs that this machine's PyTorch can use."""
    import torch

    return torch.cuda.device_count()


def _check_hardware(config: DictConfig, choices: dict[str, str], gpus: int) -> None:
    wanted = config.trainer.n_gpus_per_node
    if config.trainer.device == "cuda" and gpus < wanted and "RAY_ADDRESS" not in os.environ:
        raise RecipeError(
            f"recipe {config.trainer.experiment_name} (hardware={choices['hardware']}) needs {wanted} GPUs a machine, "
            f"and {gpus or 'none'} answered: set trainer.n_gpus_per_node, join a cluster by RAY_ADDRESS, or run "
            "RECIPE=mmupt_tiny, which needs no GPU"
        )


def _use_available_attention(config: DictConfig) -> None:
    attention = config.actor_rollout_ref.model.override_config
    if attention.attn_implementation == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        print("flash-attn is not installed: using sdpa attention, without packing; FLASH_ATTN=build make setup adds it")
        attention.attn_implementation = "sdpa"
        config.actor_rollout_ref.model.use_remove_padding = False


def _check_files(config: DictConfig) -> None:
    for key in ("data.train_files", "data.val_files", "mmupt.evaluation_files"):
        for file in _as_list(OmegaConf.select(config, key)):
            if not Path(file).is_file():
                raise RecipeError(
                    f"{key}: {file} is missing; put it there in the schema of data/schema.py, or run "
                    "RECIPE=mmupt_tiny, which makes its own data"
                )
    model = Path(config.actor_rollout_ref.model.path)
    if model.is_dir() and not (model / "config.json").is_file():
        raise RecipeError(f"actor_rollout_ref.model.path: {model} is no model folder: it has no config.json")


def _as_list(files: str | ListConfig | None) -> list[str]:
    if files is None:
        return []
    return [files] if isinstance(files, str) else list(files)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Copy all that this process and its children print into `file` as well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with subprocess.Popen(["tee", "-a", file], stdin=subprocess.PIPE) as tee:
        assert tee.stdin is not None
        for descriptor in (1, 2):
            os.dup2(tee.stdin.fileno(), descriptor)
        tee.stdin.close()
        try:
            yield
        finally:
            sys.stdout.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)


if __name__ == "__main__":
    main()
