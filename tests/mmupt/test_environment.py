"""A run writes nothing into the user's home, and starts its own Ray cluster unless RAY_ADDRESS names one."""

import os
from pathlib import Path

import pytest
import ray
from omegaconf import OmegaConf

from mmupt import hardware
from mmupt.compose import RecipeError
from mmupt.runtime.environment import (
    cache_variables,
    logger_variables,
    own_ray_token,
    remove_copies,
    visible_gpu_variables,
)
from mmupt.runtime.model_checks import hub_cache
from mmupt.training import recipe_run


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("given", "address", "joins"),
    [(None, "local", False), ("", "local", False), ("local", "local", False), ("head:6379", "head:6379", True)],
)
def test_a_run_joins_a_cluster_only_if_ray_address_names_it(
    given: str | None, address: str, joins: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ.pop("RAY_ADDRESS", None)
    if given is not None:
        os.environ["RAY_ADDRESS"] = given
    assert (hardware.ray_address(), hardware.joins_cluster()) == (address, joins)
    ray_init = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init
    assert ray_init.address == address
    assert ray_init.num_cpus == (None if joins else 16)


def test_ray_is_never_started_without_an_address() -> None:
    for file in (*Path("recipes").rglob("*.py"), *Path("verl_ext").rglob("*.py")):
        for call in file.read_text().split("ray.init(")[1:]:
            assert call.startswith("address=ray_address()") or call.startswith("address`") or "`" in call[:3], file


def test_caches_are_in_the_run_folder(tmp_path: Path, no_cluster: None) -> None:
    variables = cache_variables(tmp_path / "run", {"HOME": str(tmp_path)})
    own = {name: value for name, value in variables.items() if name != "HF_HOME"}
    assert {"HF_DATASETS_CACHE", "HF_MODULES_CACHE", "XDG_CACHE_HOME", "TRITON_HOME"} <= own.keys()
    assert all(Path(value).is_relative_to(tmp_path / "run" / "cache") for value in own.values())


def test_the_hub_cache_stays_where_the_user_has_it(tmp_path: Path, no_cluster: None) -> None:
    for environ in (
        {"HOME": "/home/me"},
        {"HOME": "/home/me", "XDG_CACHE_HOME": "/data/cache"},
        {"HOME": "/home/me", "HF_HOME": "/data/hf"},
        {"HOME": "/home/me", "HF_HUB_CACHE": "/data/hub"},
    ):
        assert hub_cache(environ | cache_variables(tmp_path, environ)) == hub_cache(environ)
    assert hub_cache({"HOME": "/home/me"}) == Path("/home/me/.cache/huggingface/hub")


def test_a_variable_that_is_set_keeps_its_value(tmp_path: Path, no_cluster: None) -> None:
    assert "XDG_CACHE_HOME" not in cache_variables(tmp_path, {"XDG_CACHE_HOME": "/shared", "HOME": "/home/me"})
    assert "WANDB_DIR" not in logger_variables("wandb", tmp_path, {"WANDB_DIR": "/shared"})


def test_the_nodes_of_a_cluster_keep_their_own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert set(cache_variables(tmp_path, {"HOME": "/home/me"})) == {"HF_DATASETS_CACHE"}


def test_a_run_with_a_read_only_home_gets_a_config_folder_and_a_ray_token(tmp_path: Path, no_cluster: None) -> None:
    # Even root cannot create anything in a home that is a file.
    (tmp_path / "home").touch()
    read_only, writable = {"HOME": str(tmp_path / "home")}, {"HOME": str(tmp_path)}
    assert "XDG_CONFIG_HOME" in cache_variables(tmp_path, read_only)
    assert len(own_ray_token(read_only)["RAY_AUTH_TOKEN"]) > 30
    assert "XDG_CONFIG_HOME" not in cache_variables(tmp_path, writable) and own_ray_token(writable) == {}
    assert own_ray_token(read_only | {"RAY_AUTH_MODE": "disabled"}) == {}


def test_the_token_of_ray_is_not_in_the_config(elsewhere: Path) -> None:
    (elsewhere / "home").touch()
    os.environ["HOME"] = str(elsewhere / "home")
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        os.environ.pop(name, None)
    config = recipe_run.prepare_run("mmupt_tiny", [])
    assert os.environ["RAY_AUTH_TOKEN"] not in OmegaConf.to_yaml(config)


def test_loggers_write_into_the_run_folder_and_wandb_resumes_its_run(tmp_path: Path) -> None:
    assert not {name for name in logger_variables(["console"], tmp_path, {}) if name.startswith("WANDB")}
    first, second = (logger_variables(["console", "wandb"], tmp_path, {}) for _ in range(2))
    assert first == second and first["WANDB_DIR"] == str(tmp_path) and first["WANDB_RESUME"] == "allow"
    other = logger_variables("wandb", tmp_path / "other", {})
    assert other["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]
    assert first["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"


def test_copies_of_the_data_are_removed_after_training(tmp_path: Path, no_cluster: None) -> None:
    copies = Path(cache_variables(tmp_path, {"HOME": "/home/me"})["HF_DATASETS_CACHE"])
    (copies / "parquet").mkdir(parents=True)
    for name in ("run/rows", "elsewhere", "cache/vllm"):
        (tmp_path / name).mkdir(parents=True)
    remove_copies(tmp_path, tmp_path / "run" / "rows")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["vllm"]
    assert not (tmp_path / "run" / "rows").exists()
    remove_copies(tmp_path / "run", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()


def test_cache_variables_are_set_in_every_process_of_a_run(elsewhere: Path) -> None:
    for name in ("RAY_ADDRESS", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    variables = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init.runtime_env.env_vars
    for name in ("HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        assert Path(variables[name]).is_relative_to(elsewhere / "runs" / "mmupt_tiny")
        assert os.environ[name] == variables[name]


def test_workers_start_in_a_slurm_job_that_names_its_gpus_twice(elsewhere: Path) -> None:
    os.environ |= {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1", "RAY_ADDRESS": "head:6379"}
    variables = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init.runtime_env.env_vars
    # veRL's workers treat an empty variable as unset.
    assert variables["ROCR_VISIBLE_DEVICES"] == "" and "CUDA_VISIBLE_DEVICES" not in variables


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_a_single_variable_that_names_the_gpus_is_left_unchanged(name: str) -> None:
    assert visible_gpu_variables({name: "0,1"}) == {}


@pytest.mark.parametrize("polls", [1, 3])
def test_a_run_waits_for_the_previous_run_on_the_cluster(polls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    busy = [{"name": "TransferQueueController", "namespace": "transfer_queue"}]
    actors = [*[busy] * (polls - 1), [{"name": "TransferQueueController", "namespace": "mine"}]]
    calls: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments["address"]))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: actors.pop(0))
    monkeypatch.setattr(recipe_run.time, "sleep", lambda _: calls.append("sleep"))
    recipe_run.wait_for_free_cluster()
    assert calls == ["head:6379", *["sleep"] * (polls - 1), "shutdown"]


def test_a_second_run_on_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: [recipe_run.QUEUE_CONTROLLER])
    with pytest.raises(RecipeError, match="another run trains on the Ray cluster at head:6379"):
        recipe_run.wait_for_free_cluster(seconds=0)
