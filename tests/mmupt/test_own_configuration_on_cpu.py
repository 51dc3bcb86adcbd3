"""Two keys make the vote in veRL's own example for a VLM, on the data and by the command that the example uses.

The example is `examples/grpo_trainer/run_qwen2_5_vl_7b_fsdp.sh` of veRL 0.9.0 over veRL's own `ppo_trainer.yaml`, its
rows those of `examples/data_preprocess/geo3k.py`. Sizes and hardware are what the CPU needs; nothing of our base is
composed.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import verl
from full_stack import HANG_SECONDS, scalars
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from verl.experimental.fully_async_policy import fully_async_main
from verl.experimental.one_step_off_policy import main_ppo as one_step_off_main
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import validate_config
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.fs import get_local_temp_path

from mmupt.compose import as_override
from mmupt.recipe_files import CONFIG_FOLDER
from mmupt_data.figure_task import Split, answer, draw_figure, encode_png, questions, sample_figures
from verl_ext.answers import extract_answer
from verl_ext.config_checks import _truth_problems, check_before_ray, check_config
from verl_ext.config_defaults import SAMPLER_DEFAULTS, SAMPLER_KEY, complete_config
from verl_ext.cpu.fork_server import fork_server
from verl_ext.votes import vote

ROOT = Path.cwd()
TWO_KEYS = (
    "reward.reward_manager.name=majority_vote",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=verl_ext.rollout.agent_loop.GroupAgentLoopManager",
)
SAMPLER = (
    "trainer.v1.sampler.custom_sampler.path=pkg://verl_ext.rollout.replay_buffer",
    "trainer.v1.sampler.custom_sampler.name=VoteReplayBuffer",
)
# The overrides of the script, without the paths of model and data.
EXAMPLE = (
    "algorithm.adv_estimator=grpo",
    "algorithm.use_kl_in_reward=False",
    "data.image_key=images",
    "data.train_batch_size=512",
    "data.max_prompt_length=1024",
    "data.max_response_length=2048",
    "data.filter_overlong_prompts=True",
    "data.truncation=error",
    "actor_rollout_ref.model.use_remove_padding=True",
    "actor_rollout_ref.model.enable_gradient_checkpointing=True",
    "actor_rollout_ref.actor.optim.lr=1e-6",
    "actor_rollout_ref.actor.ppo_mini_batch_size=128",
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=24576",
    "actor_rollout_ref.actor.use_kl_loss=True",
    "actor_rollout_ref.actor.kl_loss_coef=0.01",
    "actor_rollout_ref.actor.kl_loss_type=low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff=0",
    "actor_rollout_ref.actor.fsdp_config.param_offload=False",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=False",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.6",
    "actor_rollout_ref.rollout.n=5",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=24576",
    "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=24576",
    "actor_rollout_ref.ref.fsdp_config.param_offload=True",
    "trainer.balance_batch=True",
    "trainer.logger=[console,wandb]",
    "trainer.project_name=verl_grpo_geo3k",
    "trainer.experiment_name=qwen2_5_vl_7b_vllm_fsdp",
    "trainer.n_gpus_per_node=8",
    "trainer.nnodes=1",
    "trainer.save_freq=20",
    "trainer.test_freq=5",
    "trainer.total_epochs=15",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.model.use_fused_kernels=True",
    "actor_rollout_ref.rollout.multi_stage_wake_up=True",
    "actor_rollout_ref.rollout.enable_chunked_prefill=False",
    "actor_rollout_ref.rollout.enforce_eager=False",
    "actor_rollout_ref.rollout.free_cache_engine=True",
)
SMALL = {
    "data.train_batch_size": 4,
    "data.max_prompt_length": 256,
    "data.max_response_length": 32,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.model.path": str(ROOT / "recipes/mmupt/tiny/model"),
    "actor_rollout_ref.rollout.max_model_len": 512,
    "trainer.total_training_steps": 2,
    # A login and a GPU kernel.
    "trainer.logger": ["console", "tensorboard"],
    "actor_rollout_ref.model.use_fused_kernels": False,
    "actor_rollout_ref.ref.fsdp_config.param_offload": False,
    # What hardware/cpu.yaml takes from our base.
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.ref.fsdp_config.strategy": "fsdp2",
    **{
        f"actor_rollout_ref.{part}.fsdp_config.mixed_precision.{name}_dtype": "fp32"
        for part in ("actor", "ref")
        for name in ("param", "reduce", "buffer")
    },
    "ray_kwargs.ray_init.address": "local",
    "ray_kwargs.ray_init.include_dashboard": False,
}


def forced(keys: Mapping[str, Any]) -> list[str]:
    return [f"++{as_override(key, value)}" for key, value in keys.items()]


def hardware() -> dict[str, Any]:
    def leaves(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in block.items():
            found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return found

    content = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / "hardware" / "cpu.yaml"))
    assert isinstance(content, dict)
    # The launcher's, which does not run here.
    del content["mmupt"]
    return leaves(content)


def composed(*overrides: str) -> DictConfig:
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", overrides=[*EXAMPLE, *overrides])


def write_rows(file: Path, split: Split, count: int) -> None:
    """Rows in the shape that veRL's script writes: no id, the ground truth in them, images as bytes and path."""
    instruction = (
        "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. "
        r"The final answer MUST BE put in \boxed{}."
    )
    rows = []
    for index, figure in enumerate(sample_figures(split, count, seed=0)):
        question = questions(figure, "main")[0]
        truth = answer(figure, question)
        rows.append(
            {
                "data_source": "hiyouga/geometry3k",
                "prompt": [{"role": "user", "content": f"<image>{question.phrasings[0]} {instruction}"}],
                "images": [{"bytes": encode_png(draw_figure(figure)), "path": None}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": truth},
                "extra_info": {"split": split, "index": index, "answer": truth, "question": question.phrasings[0]},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), file)


def run_main_ppo(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    for name, split, count in (("train", "train", 12), ("test", "test", 6)):
        write_rows(folder / f"{name}.parquet", split, count)
    keys = {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "test.parquet"),
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.rollout_data_dir": str(folder / "rollouts"),
        "trainer.validation_data_dir": str(folder / "validation"),
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *EXAMPLE, *overrides]
    command += forced(hardware() | SMALL | keys)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TENSORBOARD_DIR": str(folder / "tensorboard")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)


def groups_of(file: Path) -> list[list[dict[str, Any]]]:
    groups = defaultdict(list)
    for line in file.read_text().splitlines():
        row = json.loads(line)
        groups[row["uid"].split("_")[0]].append(row)
    return list(groups.values())


def test_two_keys_are_all_that_verls_example_needs() -> None:
    check_config(composed(*TWO_KEYS))
    config = composed(*TWO_KEYS, *SAMPLER)
    check_config(config)
    complete_config(config)
    kwargs = OmegaConf.to_container(config.trainer.v1.sampler.sampler_kwargs, resolve=True)
    assert isinstance(kwargs, dict) and kwargs.keys() == SAMPLER_DEFAULTS.keys()
    assert (kwargs["n"], kwargs["train_batch_size"], kwargs["reward_manager"]) == (5, 512, "majority_vote")
    assert kwargs["stop_on_collapse"] == {"enable": False} and kwargs["filter_groups"]["enable"] is False


def test_one_key_without_the_other_is_refused() -> None:
    reward, manager = TWO_KEYS
    with pytest.raises(ValueError, match=r"majority_vote needs whole groups: set .*agent_loop_manager_class="):
        check_config(composed(reward))
    for other in ("naive", "dapo"):
        with pytest.raises(ValueError, match=rf"does nothing under reward.reward_manager.name={other}: set "):
            check_config(composed(manager, f"reward.reward_manager.name={other}"))
    # It prepares prompts, or identifies questions, under any reward manager.
    check_config(composed(manager, "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent"))
    check_config(composed(manager, *SAMPLER))


def test_a_configuration_with_another_reward_manager_is_left_alone() -> None:
    config = composed()
    untouched = config.copy()
    check_config(config)
    complete_config(config)
    assert config == untouched


@pytest.mark.parametrize(
    ("trainer", "recipe"),
    [(fully_async_main, "fully_async_ppo_trainer"), (one_step_off_main, "one_step_off_ppo_trainer")],
)
def test_the_experimental_trainers_refuse_the_vote_before_ray_and_run_without_it(
    trainer: ModuleType, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", start := Mock(side_effect=SystemExit))
    with initialize_config_dir(str(Path(str(trainer.__file__)).parent / "config"), version_base=None):
        # One of the recipes looks for veRL's own beside the working directory.
        own = "hydra.searchpath=[pkg://verl.trainer.config]"
        vote_config, plain_config = compose(recipe, [own, *TWO_KEYS]), compose(recipe, [own])
    with pytest.raises(ValueError, match=r"run verl\.trainer\.main_ppo with trainer\.v1\.trainer_mode=separate_async"):
        trainer.main.__wrapped__(vote_config)
    assert not start.called
    with pytest.raises(SystemExit):
        trainer.main.__wrapped__(plain_config)


def test_every_problem_is_in_one_message() -> None:
    config = composed(
        TWO_KEYS[0],
        *SAMPLER,
        "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent",
        "actor_rollout_ref.rollout.n=1",
        "+reward.reward_kwargs.vote={tye: all, tie: most, min_share: 2}",
        "+reward.reward_kwargs.answers={extraction: box, rul: 1}",
        "reward.reward_model.enable=True",
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.separate_async.parameter_sync_step=1",
        "algorithm.rollout_correction.rollout_is=token",
        "actor_rollout_ref.rollout.calculate_log_probs=False",
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.hybrid_engine=False",
        "+trainer.v1.sampler.sampler_kwargs={watchdog_second: 5, stop_on_collapse: {patiense: 1}}",
        "data.custom_cls.path=pkg://verl_ext.datasets.unlabelled_dataset",
        "trainer.checkpoint_callback_class=verl_ext.checkpoints.callback.CheckpointMarker",
        "actor_rollout_ref.actor.checkpoint.async_save=True",
        "reward_model.reward_manager=entropy",
    )
    with pytest.raises(ValueError) as refused:
        check_config(config)
    for part in (
        "set reward.reward_manager.name=entropy",
        "default_agent_loop=shared_prompt_agent exists only under",
        "data.custom_cls.name=UnlabelledDataset",
        "set actor_rollout_ref.rollout.calculate_log_probs=True",
        "trainer.v1.separate_async.parameter_sync_step=4",
        "set actor_rollout_ref.rollout.nnodes",
        "checkpoint_engine.backend=nccl, not naive",
        "actor_rollout_ref.model.lora.merge=True",
        "leave it True",
        "sampler_kwargs: there is no key 'watchdog_second'; did you mean 'watchdog_seconds'",
        "sampler_kwargs.stop_on_collapse: there is no key 'patiense'; did you mean 'patience'",
        "actor_rollout_ref.actor.checkpoint.async_save=False",
        "needs whole groups",
        "rollout.n >= 2",
        "there is no key 'tye'; did you mean 'tie'",
        "tie must be one of",
        "min_share must be a number from 0 to 1",
        "there is no key 'rul'; did you mean 'rule'",
        "extraction must be one of",
        "reward.reward_model.enable=False",
    ):
        assert part in str(refused.value), part


def test_values_of_the_sampler_are_refused_where_its_watchdog_or_alarm_would_fail() -> None:
    with pytest.raises(ValueError) as refused:
        values = "watchdog_seconds: 1h, poll_interval: -1, votes_per_step: True, stop_on_collapse: null"
        check_config(composed(*SAMPLER, f"+{SAMPLER_KEY}={{{values}, tracked_groups: {{number: 1, evry: 2}}}}"))
    for part in (
        "sampler_kwargs.stop_on_collapse must be a block with enable, not None",
        "sampler_kwargs.watchdog_seconds must be a number from 1 on, not '1h'",
        "sampler_kwargs.poll_interval must be a number from 0 on, not -1",
        "sampler_kwargs.votes_per_step must be null or a whole number from 0 on, not True",
        "sampler_kwargs.tracked_groups: there is no key 'evry'; did you mean 'every'?",
    ):
        assert part in str(refused.value), part


def test_files_that_the_dataset_would_refuse_are_refused_before_anything_starts(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.parquet", "train", 2)
    pq.write_table(pa.table({"prompt": ["how many ?"]}), tmp_path / "no_truth.parquet")
    keys = {
        "data.train_files": str(tmp_path / "train.parquet"),
        "data.val_files": [str(tmp_path / "missing.parquet"), str(tmp_path / "no_truth.parquet")],
        "data.custom_cls.path": "pkg://verl_ext.datasets.unlabelled_dataset",
        "data.custom_cls.name": "UnlabelledDataset",
    }
    config = composed(*TWO_KEYS, *forced(keys))
    check_config(config)
    with pytest.raises(ValueError) as refused:
        validate_config(config, use_reference_policy=True, use_critic=False)
    for part in (
        "3 settings must change",
        "train.parquet: a label-free",
        "reward_model",
        "missing.parquet is missing",
        "no_truth.parquet has no truth: ",
    ):
        assert part in str(refused.value), part


# Columns `reward_model` of a file, and the problem with them.
GROUND_TRUTHS: list[tuple[list[Any] | None, str | None]] = [
    # As in veRL's examples/data_preprocess for search (Search-R1).
    (
        [{"ground_truth": {"target": ["4", "four"]}, "style": "rule"}],
        "1 of 1 rows, the first of them row 0, whose reward_model is {'ground_truth': {'target': ['4', 'four']}",
    ),
    ([{"ground_truth": ["4", "four"]}], "1 of 1 rows"),
    ([{"ground_truth": "4"}, {"ground_truth": None}, None], "2 of 3 rows, the first of them row 1"),
    ([{"style": "model"}], "whose reward_model is {'style': 'model'}"),
    (["4"], "whose reward_model is 4"),
    (None, "whose reward_model is None"),
    ([{"ground_truth": 4.5}], None),
]
NOT_IN_JSON: list[tuple[list[Any] | None, str | None]] = [
    ([{"ground_truth": b"4"}], "1 of 1 rows"),
    ([{"ground_truth": Decimal("4.5")}], None),
]


@pytest.mark.parametrize(
    ("suffix", "reward_models", "problem"),
    [(suffix, *case) for suffix in (".parquet", ".json", ".jsonl") for case in GROUND_TRUTHS]
    + [(".parquet", *case) for case in NOT_IN_JSON],
)
def test_ground_truths_that_grade_every_response_as_wrong_are_refused_before_ray(
    reward_models: list[Any] | None, problem: str | None, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    prompts = [[{"role": "user", "content": "how many ?"}]] * len(reward_models or [1])
    table = pa.table({"prompt": prompts} | ({"reward_model": reward_models} if reward_models else {}))
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        lines = [*map(json.dumps, table.to_pylist())]
        file.write_text(f"[{', '.join(lines)}]" if suffix == ".json" else "\n".join(lines))
    keys = forced({"data.train_files": str(file), "data.val_files": [str(file)]})
    if problem is None:
        check_before_ray(composed(*TWO_KEYS, *keys))
        return
    with pytest.raises(ValueError, match=rf"^data\.val_files: .*{re.escape(problem)}.*: set reward\.custom_reward"):
        check_before_ray(composed(*TWO_KEYS, *keys))
    function = {"reward.custom_reward_function.path": __file__, "reward.custom_reward_function.name": "forced"}
    others = ("trainer.val_before_train=False", "trainer.test_freq=-1"), ("reward.reward_manager.name=naive",)
    for other in (forced(function), *others):
        config = composed(*TWO_KEYS, *keys, *other)
        assert not list(_truth_problems(config))


def test_a_validation_file_that_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_text("PAR1 no longer")
    keys = forced({"data.train_files": str(file), "data.val_files": str(file)})
    with pytest.raises(ValueError, match=rf"^data\.val_files: {file} is not a parquet file: "):
        check_before_ray(composed(*TWO_KEYS, *keys))


OWN_DATASET = """
from torch.utils.data import Dataset

class Rows(Dataset):
    truths = {"text": ["4", "5"], "list": ["4", ["4", "four"]]}

    def __init__(self, data_files, **others):
        self.rows = [{"reward_model": {"ground_truth": truth}} for truth in self.truths[data_files]]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, item):
        return self.rows[item]
"""
SUPERVISED = ("reward.reward_manager.name=ground_truth", "+data.supervised=True")
NO_VALIDATION = ("trainer.val_before_train=False", "trainer.test_freq=-1")


def make_datasets(*overrides: str) -> None:
    """What veRL's trainer does before it starts a worker."""
    trainer: Any = object.__new__(PPOTrainerSync)
    trainer.config = composed(*TWO_KEYS, "data.filter_overlong_prompts=False", *overrides)
    trainer.tokenizer = trainer.processor = None
    trainer.trainer_mode, trainer.parameter_sync_step = "sync", 1
    check_before_ray(trainer.config)
    trainer._init_dataloader()


def test_ground_truths_of_ones_own_dataset_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(OWN_DATASET)
    own = (f"data.custom_cls.path={tmp_path}/rows.py", "data.custom_cls.name=Rows", "data.train_files=text")
    make_datasets(*own, "data.val_files=text")
    problem = "Rows has no reward_model.ground_truth that is text or a number in 1 of 2 rows, the first of them row 1"
    with pytest.raises(ValueError, match=rf"^data\.val_files: {problem}.*'four'.*: set reward\.custom_reward_function"):
        make_datasets(*own, "data.val_files=list", "trainer.val_before_train=False")
    with pytest.raises(ValueError, match=rf"^data\.train_files: {problem}.*: each row needs a text or a number"):
        make_datasets(*own, *SUPERVISED, *NO_VALIDATION, "data.val_files=text", "data.train_files=list")
    # Nothing grades by them.
    plain = (
        "reward.reward_manager.name=naive",
        "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent",
    )
    for other in (NO_VALIDATION, plain):
        make_datasets(*own, "data.val_files=list", *other)


def test_ground_truths_of_files_elsewhere_are_refused_once_verl_has_copied_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    write_rows(file := tmp_path / "train.parquet", "train", 2)
    elsewhere = "hdfs://host/rows.parquet"
    # A copy that is there is not made again.
    copy = Path(get_local_temp_path(elsewhere, str(tmp_path)))
    table = pa.table(
        {"prompt": [[{"role": "user", "content": "how many ?"}]], "reward_model": [{"ground_truth": ["4"]}]}
    )
    pq.write_table(table, copy)
    files = forced({"data.train_files": str(file), "data.val_files": [elsewhere], "data.cache_dir": str(tmp_path)})
    with pytest.raises(
        ValueError, match=r"^data\.val_files: RLHFDataset has no .* in 1 of 1 rows.*: set reward\.custom"
    ):
        make_datasets(*files)
    # Files that are here have been read before Ray started.
    monkeypatch.setattr(RLHFDataset, "__getitem__", Mock(side_effect=AssertionError))
    make_datasets(*files, *forced({"data.val_files": str(file)}))


def test_a_key_of_the_dataset_that_nobody_reads_is_refused() -> None:
    dataset = (
        "data.custom_cls.path=pkg://verl_ext.datasets.unlabelled_dataset",
        "data.custom_cls.name=UnlabelledDataset",
    )
    known = ("+data.min_pixels=3136", "+data.instruction=Think.", "+data.filter_prompts=False")
    check_config(composed(*TWO_KEYS, *dataset, *known))
    with pytest.raises(ValueError, match=r"there is no key data.instuction; did you mean 'instruction'") as refused:
        check_config(composed(*TWO_KEYS, *dataset, "+data.min_pixel=3136", "+data.instuction=Think."))
    assert "there is no key data.min_pixel; did you mean 'min_pixels'" in str(refused.value)
    for key in ("min_pixels", "min_pixel"):
        with pytest.raises(
            ValueError, match=rf"data.{key} is not .*: set data.custom_cls.* key is data.min_pixels, or"
        ):
            check_config(composed(*TWO_KEYS, f"+data.{key}=3136"))
    check_config(composed(*TWO_KEYS, "+data.mine=1", "data.custom_cls.path=null"))
    # With nothing of the plugin, or a dataset of one's own, they are not the plugin's.
    check_config(composed("+data.min_pixels=3136"))
    check_config(composed(*TWO_KEYS, "+data.min_pixels=3136", "data.custom_cls={path: mine.py, name: Rows}"))


def test_a_reward_function_by_its_old_key_is_refused_as_verl_does_not_read_it() -> None:
    old = "custom_reward_function.path=mine.py"
    with pytest.raises(ValueError, match=r"custom_reward_function.path=mine.py: rename .* to reward.custom_reward"):
        check_config(composed(*TWO_KEYS, old))
    check_config(composed(old))


def test_other_old_keys_that_would_change_rewards_are_refused_together() -> None:
    old = (
        "reward_model.reward_manager=dapo",
        "+reward_model.reward_kwargs.overlong_buffer_cfg.enable=True",
        "+reward_model.reward_kwargs.max_resp_len=2048",
    )
    with pytest.raises(ValueError) as refused:
        check_config(composed(*TWO_KEYS, *old, "reward_model.enable=True"))
    assert str(refused.value) == (
        "veRL does not read reward_model.reward_manager=dapo, reward_model.enable=True, "
        "reward_model.reward_kwargs.overlong_buffer_cfg.enable=True: remove them"
    )
    check_config(composed(*old))
    check_config(composed(*TWO_KEYS, "reward_model.reward_manager=naive", "reward_model.enable=False"))


CODE_PROBLEMS = (
    "3 settings must change",
    "score.py: importing it raises ModuleNotFoundError: No module named 'no_such_library'",
    "trainer.checkpoint_callback_class=no_such.Callback: there is no such module",
    "=single_turn_agnt: none is registered under this name; did you mean 'single_turn_agent'?",
)


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[str, ...]:
    """Overrides that name code which does not exist or cannot be imported."""
    (tmp_path / "score.py").write_text("import no_such_library\ndef compute_score(**response): ...\n")
    return (
        f"reward.custom_reward_function.path={tmp_path / 'score.py'}",
        "trainer.checkpoint_callback_class=no_such.Callback",
        "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agnt",
    )


def test_verls_command_line_ends_before_ray_where_its_code_does_not_exist(
    faulty: tuple[str, ...], tmp_path: Path
) -> None:
    run = run_main_ppo(tmp_path, *faulty)
    assert run.returncode == 1 and "ray init kwargs" not in run.stdout
    for part in (f"ValueError: {CODE_PROBLEMS[0]}", *CODE_PROBLEMS[1:]):
        assert part in run.stderr, part


def test_code_that_does_not_exist_is_refused_beside_the_two_keys(faulty: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_rows(file, "train", 4)
    keys = forced({"data.train_files": str(file), "data.val_files": str(file)})
    with pytest.raises(ValueError) as refused:
        check_before_ray(composed(*TWO_KEYS, *keys, *faulty))
    for part in CODE_PROBLEMS:
        assert part in str(refused.value), part


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[list[str]]:
    """Overrides by which the runs of this module start in half the time; they have no say in what is trained."""
    block = "ray_kwargs.ray_init.runtime_env"
    variables = {name.removeprefix(f"{block}.env_vars."): value for name, value in hardware().items() if block in name}
    del variables[f"{block}.worker_process_setup_hook"]
    with fork_server(variables) as runtime_env:
        program = {f"{block}.py_executable": runtime_env["py_executable"]}
        yield forced(program | {f"{block}.env_vars.{name}": one for name, one in runtime_env["env_vars"].items()})


@pytest.mark.full_stack
def test_verls_example_trains_on_the_vote_with_two_keys(tmp_path: Path, forked_workers: list[str]) -> None:
    run = run_main_ppo(tmp_path, *TWO_KEYS, *forked_workers)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    for step in (1, 2):
        groups = groups_of(tmp_path / "rollouts" / f"{step}.jsonl")
        assert [len(group) for group in groups] == [5] * 4
        for group in groups:
            # The rows carry their ground truth, and the rewards are those of the vote.
            assert all(row["gts"].isdigit() for row in group)
            result = vote([extract_answer(row["output"]) for row in group])
            assert [row["score"] for row in group] == list(result.rewards)
    assert len((tmp_path / "validation" / "2.jsonl").read_text().splitlines()) == 6
    assert "vote/majority_ratio" not in scalars(tmp_path)


@pytest.mark.full_stack
def test_the_other_parts_work_on_plain_rows_without_a_key_of_their_own(
    tmp_path: Path, forked_workers: list[str]
) -> None:
    shared = "actor_rollout_ref.rollout.agent.default_agent_loop=shared_prompt_agent"
    callback = "trainer.checkpoint_callback_class=verl_ext.checkpoints.callback.CheckpointMarker"
    run = run_main_ppo(tmp_path, *TWO_KEYS, *SAMPLER, shared, callback, *forked_workers)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    series = scalars(tmp_path)
    assert set(series["vote/majority_ratio"]) == set(series["vote/reward_accuracy"]) == {1, 2}
    history = [json.loads(line) for line in (tmp_path / "checkpoints" / "history.jsonl").read_text().splitlines()]
    validations = [line["right"] for line in history if "right" in line]
    # The same six questions before and after training.
    assert len(validations) == 2 and len(validations[0]) == 6 and validations[0].keys() == validations[1].keys()
