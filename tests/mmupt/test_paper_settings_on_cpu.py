"""The headline recipe has the paper's settings, and hardware options and methods change only what they must."""

from inspect import signature
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from composed_recipes import HARDWARE, shipped
from omegaconf import DictConfig, OmegaConf
from transformers import AutoProcessor
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, kl_penalty_forward
from verl.trainer.ppo.utils import create_rl_dataset

from benchmarks.tuning import LEARNING_RATES
from mmupt.baseline_settings import BASELINES
from mmupt.benchmarks.paper_scores import read_paper
from mmupt.compose import load_recipe
from mmupt.recipe_files import options
from mmupt.training.resume_rules import flatten
from mmupt_data.figure_task import write_figures

# The table of hyperparameters of MM-UPT (arXiv 2505.22453) and defaults of its authors' code.
PAPER = {
    "actor_rollout_ref.model.path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "actor_rollout_ref.rollout.n": 10,
    "actor_rollout_ref.rollout.temperature": 0.7,
    "actor_rollout_ref.rollout.top_p": 0.99,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.seed": 1,
    "data.train_batch_size": 512,
    "data.gen_batch_size": None,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 128,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.filter_groups.enable": False,
    "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.3,
    "actor_rollout_ref.actor.clip_ratio_c": 3.0,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.kl_loss_coef": 0.01,
    "actor_rollout_ref.actor.optim.optimizer": "AdamW",
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.0,
    "actor_rollout_ref.actor.optim.weight_decay": 1e-2,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 2048,
    "data.min_pixels": 262_144,
    "data.max_pixels": 1_204_224,
    "actor_rollout_ref.actor.freeze_vision_tower": False,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "bf16",
    "actor_rollout_ref.rollout.dtype": "bfloat16",
    "trainer.total_epochs": 15,
    "trainer.nnodes": 1,
    "trainer.n_gpus_per_node": 8,
    "data.seed": 1,
    "data.shuffle": True,
    "data.supervised": False,
    "data.instruction": r"Please reason step by step, and put your final answer within \boxed{}.",
    "reward.reward_manager.name": "majority_vote",
    "reward.reward_kwargs.vote.reward": "hard",
    "reward.reward_kwargs.vote.min_share": 0.0,
    "reward.reward_kwargs.vote.vote_n": None,
    # The step of the released checkpoint.
    "trainer.total_training_steps": 80,
}


@pytest.fixture
def headline() -> DictConfig:
    return shipped("mmupt_mathvista")


@pytest.mark.parametrize("key", PAPER)
def test_the_headline_recipe_has_the_papers_value(headline: DictConfig, key: str) -> None:
    value = OmegaConf.select(headline, key, throw_on_missing=True)
    assert (OmegaConf.to_container(value) if OmegaConf.is_config(value) else value) == PAPER[key]


def test_a_step_has_four_updates_of_1280_sequences(headline: DictConfig) -> None:
    n, mini_batch = headline.actor_rollout_ref.rollout.n, headline.actor_rollout_ref.actor.ppo_mini_batch_size
    assert mini_batch * n == 1280 and headline.data.train_batch_size // mini_batch == 4


def test_other_recipes_of_the_paper_run_all_its_epochs() -> None:
    for recipe in ("mmupt_geometry3k", "mmupt_geoqa", "mmupt_mmr1", "mmupt_thinklite"):
        config = shipped(recipe)
        assert (config.trainer.total_training_steps, config.trainer.total_epochs) == (None, 15)


def test_advantages_are_divided_by_the_unbiased_standard_deviation_plus_1e_6(headline: DictConfig) -> None:
    # Rewards close enough for 1e-6 to matter: mean 1e-6, unbiased standard deviation 2**0.5 * 1e-6.
    rewards, mask = torch.tensor([[0.0], [2e-6]]), torch.ones(2, 1)
    norm_by_std = headline.algorithm.norm_adv_by_std_in_grpo
    group = np.array(["one", "one"])
    advantages, _ = compute_grpo_outcome_advantage(rewards, mask, group, norm_adv_by_std_in_grpo=norm_by_std)
    assert advantages.flatten().tolist() == pytest.approx([-1 / (2**0.5 + 1), 1 / (2**0.5 + 1)], rel=1e-3)


def test_the_kl_term_of_a_token_is_clamped_to_ten(headline: DictConfig) -> None:
    kind = headline.actor_rollout_ref.actor.kl_loss_type
    near, far = kl_penalty_forward(torch.tensor([-1.0, -9.0]), torch.tensor([-2.0, -1.0]), kind).tolist()
    # The terms are exp(-1) + 1 - 1 and, without the clamp, exp(8) - 8 - 1.
    assert near == pytest.approx(np.exp(-1)) and far == 10


def test_a_prompt_is_the_question_a_space_and_the_instruction_without_a_system_message(tmp_path: Path) -> None:
    write_figures(tmp_path, train=1, validation=1, test=1)
    overrides = [
        f"data.{kind}_files={tmp_path}/{name}.parquet" for kind, name in (("train", "train"), ("val", "validation"))
    ]
    data = load_recipe("mmupt_mathvista", [*overrides, "data.filter_overlong_prompts=False"])[0].data
    processor = AutoProcessor.from_pretrained("recipes/mmupt/tiny/model")
    (message,) = create_rl_dataset(data.train_files, data, processor.tokenizer, processor)[0]["raw_prompt"]
    (row,) = pq.read_table(data.train_files).to_pylist()
    image, text = message["content"]
    assert message["role"] == "user"
    assert f"<image>{text['text']}" == f"{row['prompt'][0]['content']} {data.instruction}"
    assert (image["min_pixels"], image["max_pixels"]) == (262_144, 1_204_224)


@pytest.mark.parametrize("recipe", ["mmupt_tiny", "mmupt_geometry3k"])
def test_the_supervised_control_differs_only_in_labels_and_reward(recipe: str) -> None:
    supervised, unlabelled = (
        flatten(OmegaConf.to_container(shipped(recipe, f"method={method}"), resolve=True))
        for method in ("supervised", "mmupt")
    )
    # Descriptions and output paths follow from the name of the run.
    descriptions = ("mmupt.report_note", "mmupt.paper_method")
    follow_from_name = (
        "trainer.",
        "mmupt.name",
        "mmupt.run_folder",
        *descriptions,
        "data.cache_dir",
        "data.dropped_rows",
        "actor_rollout_ref.rollout.trace.experiment_name",
    )
    changed = {key for key in supervised | unlabelled if supervised.get(key) != unlabelled.get(key)}
    # The sampler knows the name of the reward manager.
    reward = {"reward.reward_manager.name", "trainer.v1.sampler.sampler_kwargs.reward_manager"}
    named = {key for key in changed if key.startswith(follow_from_name)} - reward
    assert changed - named == {"data.supervised", *reward}
    assert supervised["mmupt.paper_method"] == "GRPO with labels"
    assert all(f"{recipe}-supervised" in supervised[key] for key in named - set(descriptions))


def test_every_method_of_the_paper_has_an_option() -> None:
    configs = [shipped("mmupt_geometry3k", f"method={method}") for method in options("method")]
    methods = {config.mmupt.paper_method for config in configs} - {None}
    assert methods == {row.method for row in read_paper().rows} - {read_paper().base.method}


FORCED_BY_24_GB = {
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.actor.optim.lr",
}


@pytest.mark.parametrize("hardware", [name for name in HARDWARE if name.startswith("gpu_")])
def test_gpu_options_keep_the_papers_settings_unless_24_gb_force_a_change(hardware: str) -> None:
    config, _ = load_recipe("mmupt_mathvista", [f"hardware={hardware}"])
    # These keys describe the paper's own machine.
    machine = {f"trainer.{key}" for key in ("nnodes", "n_gpus_per_node")}
    machine.add("actor_rollout_ref.rollout.tensor_model_parallel_size")
    changed = {key for key in set(PAPER) - machine if OmegaConf.select(config, key) != PAPER[key]}
    assert changed == (FORCED_BY_24_GB if hardware == "gpu_1x24gb" else set())


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("recipe", ["mmupt_tiny", "mmupt_tiny_hard", "mmupt_geometry3k"])
def test_a_baseline_has_the_model_rows_and_rollout_settings_of_grpo(recipe: str, method: str) -> None:
    baseline, grpo = shipped(recipe, f"method={method}"), shipped(recipe)
    assert baseline.mmupt.baseline.method == method
    for key in ("actor_rollout_ref.model", "data.train_files", "mmupt.evaluation_files"):
        assert OmegaConf.select(baseline, key) == OmegaConf.select(grpo, key)
    # Genixer samples 16 responses, and two other methods sample 12 on the hard task; veRL's actor copies the number.
    has_own_n = method == "genixer" or (recipe == "mmupt_tiny_hard" and method in ("lmsi", "rejection_sft"))
    n_keys = {"rollout.n", "actor.rollout_n"} if has_own_n else set()
    changed = {f"{part}.{key}" for part in ("actor", "rollout") for key in _changed(baseline, grpo, part)}
    assert changed <= {"rollout.trace", *n_keys}
    # For the tiny model, each method has the best of the learning rates that were tried with all methods.
    rates = LEARNING_RATES if recipe.startswith("mmupt_tiny") else (grpo.actor_rollout_ref.actor.optim.lr,)
    assert {baseline.mmupt.baseline[trainer].learning_rate for trainer, _ in BASELINES[method].stages} <= set(rates)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_uses_more_rows_on_the_hard_task_but_no_more_than_exist(method: str) -> None:
    easy, hard = (shipped(recipe, f"method={method}").mmupt.baseline for recipe in ("mmupt_tiny", "mmupt_tiny_hard"))
    assert easy.rows < hard.rows <= signature(write_figures).parameters["train"].default
    # All other settings of a baseline are the same for both tasks.
    assert {key for key in easy if easy[key] != hard[key]} == {"rows"}


def test_the_untrained_control_has_zero_training_steps() -> None:
    for recipe in ("mmupt_tiny", "mmupt_tiny_hard"):
        assert shipped(recipe, "method=careful").trainer.total_training_steps == 0


def _changed(config: DictConfig, reference: DictConfig, part: str) -> set[str]:
    """The keys of a part of `actor_rollout_ref` whose values differ."""
    block, expected = config.actor_rollout_ref[part], reference.actor_rollout_ref[part]
    return {str(key) for key in block if block[key] != expected.get(key)}
