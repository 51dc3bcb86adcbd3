"""Train a recipe: compose and check it, prepare its data, run veRL's trainer, export the policy, report.

    mmupt train mmupt_tiny trainer.total_training_steps=3

All files go to `mmupt.run_folder`. After an interruption, the same command resumes training from the last checkpoint
and runs every later stage whose result is missing. A run that was stopped because it collapsed continues with export,
evaluation and report. Training is veRL's unchanged `verl.trainer.main_ppo.run_ppo`, or `mmupt.baselines.stage_runner`
if `mmupt.baseline.method` is set.
"""

import importlib.util
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmupt.baselines.stage_runner import has_begun, run_baseline
from mmupt.compose import CONFIG_DIR_VARIABLE, RecipeError, compose_recipe, refuse
from mmupt.console import Phase, emit, log_to, show_result, tell
from mmupt.datasets import data_set
from mmupt.hardware import count_gpus, joins_cluster, judge_gpus, ray_address, rollout_gpus
from mmupt.runtime.environment import (
    cache_variables,
    logger_variables,
    own_ray_token,
    remove_copies,
    visible_gpu_variables,
)
from mmupt.runtime.export import merge
from mmupt.runtime.preflight import problems_of_files, problems_of_rows, problems_of_settings, training_rows
from mmupt.runtime.run_lock import RUN_FOLDER_VARIABLE, exclusive_run
from mmupt.runtime.start_record import record_start
from mmupt.training.adapters import problems_of_adapters
from mmupt.training.collapse_record import alarm_of, why_unwatched, write_stop
from mmupt.training.memory_estimate import report
from mmupt.training.policy_evaluation import AFTER, BEFORE, evaluate_policy
from mmupt.training.resume_rules import why_another_run
from mmupt.training.row_checks import check_leakage, check_rows, dropped_rows
from mmupt.training.run_console import follow_steps, head_of, start_phases
from mmupt.training.run_cost import hours_of
from mmupt.training.run_report import write_report
from mmupt_data.prepare import FOLDER
from verl_ext.checkpoints import checkpoint_of, last_whole_step, prune, repair_tracker
from verl_ext.checkpoints.best import kept_checkpoint
from verl_ext.collapse import StoppedOnCollapse
from verl_ext.cpu.fork_server import fork_server
from verl_ext.datasets.pixel_limits import largest_area, pixel_limits

# transfer_queue/interface.py
QUEUE_CONTROLLER = {"name": "TransferQueueController", "namespace": "transfer_queue"}


def run_recipe(recipe: str, overrides: list[str]) -> None:
    """Run all stages of a recipe.

    Raises:
        RecipeError: a check failed, or a stage.
        BlockingIOError: another process is running in the run folder.
    """
    emit(Phase("check the recipe"))
    config = prepare_run(recipe, overrides)
    run_folder = Path(config.mmupt.run_folder)
    log = run_folder / "logs" / "train.log"
    with exclusive_run(run_folder, log), _log_to(log):
        _check_continued(config, run_folder / "config.yaml")
        OmegaConf.save(config, run_folder / "config.yaml")
        record_start(run_folder, ["mmupt", "train", recipe, *_config_dir_option(), *overrides])
        emit(head_of(config, overrides))
        emit(Phase("check the rows"))
        check_rows(config)
        refuse(problems_of_rows(config, dropped_rows(config)))
        method = config.mmupt.baseline.method
        emit(Phase("look for training rows that are evaluated on"))
        check_leakage(config)
        if method is None and config.trainer.device == "cuda":
            tell(report(config))
        if config.trainer.val_only:
            repair_tracker(Path(config.trainer.default_local_dir))
            follow_steps(config, total=None)
            run_trainer(config)
            folder = config.trainer.validation_data_dir
            show_result(f"The validation is in {folder}; nothing was trained (trainer.val_only)")
            return
        with hours_of(config):
            model = export(config, train_until_done(config)) if method is None else run_baseline(config)
        if config.mmupt.evaluation_files is not None:
            evaluate_policy(config, config.actor_rollout_ref.model.path, BEFORE)
            evaluate_policy(config, model, AFTER)
            emit(Phase("report"))
            show_result(write_report(run_folder, config.mmupt.report_note))
            show_result(f"The report is in {run_folder / 'report.md'}")
        show_result(f"The policy is in {model}")


def _config_dir_option() -> list[str]:
    folder = os.environ.get(CONFIG_DIR_VARIABLE)
    return ["--config-dir", folder] if folder else []


def prepare_run(recipe: str, overrides: list[str]) -> DictConfig:
    """Compose a recipe for this machine, check it, and prepare its data sets.

    Raises:
        RecipeError: settings, files or the machine would make the run fail; names all problems found.
    """
    config, choices, problems = compose_recipe(recipe, overrides)
    gpus = count_gpus()
    if config.trainer.device == "cpu" and gpus and not any(item.startswith("hardware=") for item in overrides):
        config, choices, problems = compose_recipe(recipe, [*overrides, "hardware=gpu_1x80gb"])
    config.mmupt.run_folder = os.path.abspath(config.mmupt.run_folder)
    OmegaConf.update(config, "ray_kwargs.ray_init.address", ray_address(), force_add=True)
    if joins_cluster():
        # These size a cluster that this run starts; the joined cluster has its own sizes.
        config.ray_kwargs.ray_init.num_cpus = config.ray_kwargs.ray_init.num_gpus = None
    folder = Path(config.mmupt.run_folder)
    folder_variables = {"TENSORBOARD_DIR": str(folder / "tensorboard"), RUN_FOLDER_VARIABLE: str(folder)}
    environ = {**os.environ, **config.ray_kwargs.ray_init.runtime_env.env_vars}
    _set_variables(config, folder_variables | cache_variables(folder, environ) | visible_gpu_variables(environ))
    os.environ.update(own_ray_token(os.environ))
    problems += [*_problems_of_hardware(config, choices, gpus), *problems_of_settings(config, os.environ)]
    to_prepare = [FOLDER / name for name in config.mmupt.datasets]
    refuse([*problems, *problems_of_files(config, os.environ, to_prepare)])
    _set_variables(config, logger_variables(config.trainer.logger, folder, os.environ))
    _use_available_attention(config)
    prepare_data_sets(config)
    emit(Phase("check files and settings"))
    refuse(problems_of_files(config, os.environ))
    # May download the model's config.json.
    refuse(problems_of_adapters(config))
    # Checking rows may take minutes: this check comes first, and is repeated without the rows that are then dropped.
    refuse(problems_of_rows(config, {}))
    # Last, because it may download the processor.
    limit_profiled_images(config)
    return config


def prepare_data_sets(config: DictConfig) -> None:
    """Prepare the data sets of a recipe; RecipeError for an unknown data set or a failed preparation."""
    for name in config.mmupt.datasets:
        emit(Phase(f"prepare the data set {name}"))
        try:
            data_set(name).prepare(FOLDER / name, progress=True)
        except (ValueError, OSError) as error:
            raise RecipeError(f"mmupt.datasets: {error}") from error


def _set_variables(config: DictConfig, variables: Mapping[str, str]) -> None:
    """Set environment variables in all processes of the run, including this process."""
    block = config.ray_kwargs.ray_init.runtime_env.env_vars
    for name, value in variables.items():
        OmegaConf.update(config, f"ray_kwargs.ray_init.runtime_env.env_vars.{name}", value, force_add=True)
    block.update({name: str(value) for name, value in block.items()})
    os.environ.update(block)


def train_until_done(config: DictConfig) -> int | None:
    """Finish the training and return the step of the policy to export, None for the last checkpoint.

    Only a collapsed run returns a step; its `collapse.json` has the details.
    """
    checkpoints = Path(config.trainer.default_local_dir)
    if reason := why_unwatched(config):
        tell(f"mmupt.stop_on_collapse: {reason}")
    total = total_steps(config)
    step = repair_tracker(checkpoints)
    prune(checkpoints, config.trainer.max_actor_ckpt_to_keep)
    is_unfinished = step < (sys.maxsize if total is None else total)
    if step:
        of_total = "" if total is None else f" of {total}"
        resumed = f"the run resumes from step {step}{of_total}"
        tell(resumed if is_unfinished else f"all {total} training steps are done already")
    if alarm_of(config).find_collapse() is None and is_unfinished:
        follow_steps(config, total)
        try:
            run_trainer(config)
        except StoppedOnCollapse:
            # `write_stop` prints the reason.
            tell("training was stopped")
    return write_stop(alarm_of(config), Path(config.mmupt.run_folder))


def total_steps(config: DictConfig) -> int | None:
    """The number of steps of a run; None if veRL filters rows itself, so that they cannot be counted beforehand."""
    steps = config.trainer.total_training_steps
    if steps is None and not config.data.filter_overlong_prompts:
        rows = training_rows(config, dropped_rows(config))
        return int(rows // config.data.train_batch_size * config.trainer.total_epochs)
    return None if steps is None else int(steps)


def run_trainer(config: DictConfig) -> None:
    """Run veRL's config validation and trainer, in this process and the Ray cluster it starts or joins."""
    if not config.mmupt.fork_workers or joins_cluster():
        _run_trainer(config)
        return
    with fork_server(config.ray_kwargs.ray_init.runtime_env.env_vars) as runtime_env:
        config = config.copy()
        OmegaConf.update(config, "ray_kwargs.ray_init.runtime_env", runtime_env, force_add=True)
        _run_trainer(config)


def _run_trainer(config: DictConfig) -> None:
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from verl_ext.checkpoints.reshard import reshard

    auto_set_device(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    checkpoints = Path(config.trainer.default_local_dir)
    if step := last_whole_step(checkpoints):
        reshard(checkpoint_of(checkpoints, step) / "actor", config.trainer.nnodes * config.trainer.n_gpus_per_node)
    if joins_cluster():
        wait_for_free_cluster()
    try:
        with start_phases(config.trainer.val_before_train):
            run_ppo(config, task_runner_class=TaskRunnerV1)
    finally:
        ray.shutdown()
        remove_copies(Path(config.mmupt.run_folder), Path(config.data.cache_dir))


def wait_for_free_cluster(seconds: float = 60.0) -> None:
    """Wait until no other run trains on the joined Ray cluster; RecipeError if another run still does after `seconds`.

    TransferQueue has one controller per cluster, with a fixed name: two runs would take each other's samples. The
    controller of a finished run disappears within seconds, or once Ray notices that its machine is gone.
    """
    import ray

    ray.init(address=ray_address(), log_to_driver=False)
    deadline = time.monotonic() + seconds
    try:
        while QUEUE_CONTROLLER in ray.util.list_named_actors(all_namespaces=True):
            if time.monotonic() > deadline:
                raise RecipeError(
                    f"another run trains on the Ray cluster at {ray_address()}: wait until it ends, or start another "
                    "cluster for this run"
                )
            time.sleep(1)
    finally:
        ray.shutdown()


def export(config: DictConfig, step: int | None = None) -> Path:
    """Merge the checkpoint of a step, by default the last, into a Hugging Face folder with veRL's own merger.

    Returns `<run_folder>/model`, or the initial model of the recipe for step 0 and for a run without training.
    """
    if config.trainer.total_training_steps == 0 or step == 0:
        return Path(config.actor_rollout_ref.model.path)
    checkpoints = Path(config.trainer.default_local_dir)
    emit(Phase("export the policy"))
    kept = None if step is None else kept_checkpoint(checkpoints, step)
    step = last_whole_step(checkpoints) if step is None else step
    checkpoint = kept or checkpoint_of(checkpoints, step)
    return merge(checkpoint / "actor", Path(config.mmupt.run_folder) / "model", str(step))


def _problems_of_hardware(config: DictConfig, choices: dict[str, str], gpus: int) -> Iterator[str]:
    training, generating, judging = config.trainer.n_gpus_per_node, rollout_gpus(config), judge_gpus(config)
    needed = training + generating + judging
    if config.trainer.device == "cuda" and gpus < needed and not joins_cluster():
        purposes = {"train": training, "generate": generating, "judge": judging}
        listed = ", ".join(f"{count} to {purpose}" for purpose, count in purposes.items() if count)
        parts = f" ({listed})" if needed > training else ""
        keys = "trainer.n_gpus_per_node" + (" and actor_rollout_ref.rollout.n_gpus_per_node" if generating else "")
        yield (
            f"recipe {config.trainer.experiment_name} (hardware={choices['hardware']}) needs {needed} GPUs per machine"
            f"{parts}, but this machine has {gpus or 'none'}: set {keys}, join a cluster (RAY_ADDRESS), or "
            f"run RECIPE=mmupt_tiny, which needs no GPU{'' if gpus else '; `mmupt doctor` checks the driver'}"
        )
    ranks, n = training * config.trainer.nnodes, config.actor_rollout_ref.rollout.n
    for key in ("data.train_batch_size", "actor_rollout_ref.actor.ppo_mini_batch_size"):
        if OmegaConf.select(config, key) * n % ranks:
            yield (
                f"{key} * rollout.n = {OmegaConf.select(config, key) * n} responses cannot be shared evenly among "
                f"{ranks} GPUs: change it or trainer.n_gpus_per_node"
            )
    if config.mmupt.fork_workers and config.trainer.device != "cpu":
        yield "set mmupt.fork_workers=False: a process that uses a GPU cannot be forked"
    if config.trainer.save_freq < 1:
        yield "trainer.save_freq must be at least 1: the trained policy is exported from a checkpoint"
    if config.trainer.max_actor_ckpt_to_keep == 1:
        yield (
            "trainer.max_actor_ckpt_to_keep must be at least 2: with 1, veRL deletes a checkpoint before the next is "
            "complete"
        )
    if config.actor_rollout_ref.actor.checkpoint.async_save:
        yield "set actor_rollout_ref.actor.checkpoint.async_save=False: a run resumes only from complete checkpoints"


def _use_available_attention(config: DictConfig) -> None:
    attention = config.actor_rollout_ref.model.override_config.attn_implementation
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        tell("flash-attn is not installed: using sdpa attention without packing; README.md explains how to install it")
        use_sdpa(config)


def use_sdpa(config: DictConfig) -> None:
    """Switch a recipe from flash-attn to sdpa attention without packing, in place."""
    config.actor_rollout_ref.model.override_config.attn_implementation = "sdpa"
    config.actor_rollout_ref.model.use_remove_padding = False


def limit_profiled_images(config: DictConfig) -> None:
    """Limit the image size for which vLLM reserves memory to the largest image of the run.

    By default vLLM reserves memory for the processor's maximum, which stays if it is smaller. The limit never scales an
    image down, as the dataset makes no larger images. A size that the recipe sets is kept.
    """
    from transformers import AutoProcessor

    data, model = config.data, config.actor_rollout_ref.model
    arguments = config.actor_rollout_ref.rollout.engine_kwargs.vllm
    if arguments.get("mm_processor_kwargs") is not None or None in (data.max_pixels, data.validation_max_pixels):
        return
    path = model.tokenizer_path or model.path
    processor = AutoProcessor.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        return
    pixels = max(largest_area(pixel_limits(data, training), image_processor) for training in (True, False))
    size = {name: int(image_processor.size[name]) for name in ("shortest_edge", "longest_edge")}
    size["longest_edge"] = min(size["longest_edge"], pixels)
    key = "actor_rollout_ref.rollout.engine_kwargs.vllm.mm_processor_kwargs"
    OmegaConf.update(config, key, {"size": size}, force_add=True)


def _check_continued(config: DictConfig, saved: Path) -> None:
    """Raise RecipeError if the folder has a run that cannot be continued with this config."""
    if not saved.is_file():
        return
    before = OmegaConf.load(saved)
    assert isinstance(before, DictConfig)
    folders = {Path(each.trainer.default_local_dir) for each in (before, config)}
    if not (any(map(last_whole_step, folders)) or has_begun(saved.parent)):
        return
    if reason := why_another_run(before, config):
        raise RecipeError(
            f"{saved.parent} holds a run with other settings:{reason}; for a separate run, set mmupt.run_folder=..."
        )


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Send the output of this process and its children to `file`; without a console, copy it there."""
    if log_to(file):
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    # -i: tee must survive Ctrl-C, as more output follows.
    with subprocess.Popen(["tee", "-i", "-a", file], stdin=subprocess.PIPE) as tee:
        assert tee.stdin is not None
        for descriptor in (1, 2):
            os.dup2(tee.stdin.fileno(), descriptor)
        tee.stdin.close()
        try:
            yield
        except RecipeError:
            raise
        except BaseException:
            # Writes the traceback to the log as well; the console shows its last line twice.
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
