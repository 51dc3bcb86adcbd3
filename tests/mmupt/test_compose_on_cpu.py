"""Every shipped recipe and option composes and passes veRL's own validation; an unknown key is named with its file."""

import shutil
from copy import deepcopy
from dataclasses import asdict, fields
from functools import cache
from inspect import signature
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoProcessor
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, kl_penalty_forward
from verl.trainer.ppo.utils import create_rl_dataset, need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from benchmarks.tuning import LEARNING_RATES
from mmupt import recipe_files
from mmupt.baseline_settings import BASELINES
from mmupt.benchmarks.paper_scores import read_paper
from mmupt.compose import NAMING_GROUPS, RecipeError, load_recipe
from mmupt.recipe_files import CONFIG_FOLDER, GROUPS, listing, options, recipes
from mmupt.runtime.preflight import problems_of_settings
from mmupt.training import recipe_run
from mmupt.training.recipe_run import _problems_of_hardware
from mmupt.training.resume_rules import flatten
from mmupt.training.run_cost import devices
from mmupt_data.figure_task import write_figures
from verl_ext.answers import Comparison
from verl_ext.collapse import CollapseRule
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import RewardSettings, read_settings
from verl_ext.votes import VoteOptions


@pytest.fixture
def new_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path at which to write a recipe of one's own."""
    monkeypatch.setattr(recipe_files, "CONFIG_FOLDER", Path(shutil.copytree(CONFIG_FOLDER, tmp_path / "config")))
    return tmp_path / "config" / "mine.yaml"


@cache
def shipped(recipe: str, *overrides: str) -> DictConfig:
    """A recipe for tests that only read it: composing takes a second."""
    return load_recipe(recipe, overrides)[0]


def validate(config: DictConfig, folder: Path) -> None:
    """As veRL validates before it starts, when the files of a recipe are made."""
    rows = pa.table({"id": ["a"], "prompt": [[{"role": "user", "content": "how many ?"}]]})
    pq.write_table(rows, folder / "rows.parquet")
    config = deepcopy(config)
    config.data.train_files = config.data.val_files = str(folder / "rows.parquet")
    validate_config(config, need_reference_policy(config), need_critic(config))


@pytest.mark.parametrize("recipe", recipes())
def test_a_shipped_recipe_composes_and_passes_verls_validation(recipe: str, tmp_path: Path) -> None:
    config = shipped(recipe)
    validate(config, tmp_path)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.agent.agent_loop_manager_class == "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
    assert config.reward.reward_manager.name in REWARDS
    assert need_reference_policy(config) and not need_critic(config)
    assert config.trainer.experiment_name == recipe and config.mmupt.run_folder == f"runs/{recipe}"
    assert not list(problems_of_settings(config, {}))


@pytest.mark.parametrize("recipe", recipes())
def test_a_shipped_recipe_opens_with_what_it_is_and_how_to_launch_it(recipe: str) -> None:
    header = (CONFIG_FOLDER / f"{recipe}.yaml").read_text().split("defaults:")[0]
    for word in ("# Data ", "# Hardware ", "# Launch ", "# Override "):
        assert word in header
    assert recipes()[recipe] in header


CHOICES = [("mmupt_geometry3k", group, option) for group in NAMING_GROUPS for option in options(group)]
CHOICES += [("mmupt_tiny", "method", method) for method in options("method")]


@pytest.mark.parametrize(("recipe", "group", "option"), CHOICES)
def test_an_option_composes_and_passes_verls_validation_in_a_folder_of_its_own(
    recipe: str, group: str, option: str, tmp_path: Path
) -> None:
    config = shipped(recipe, f"{group}={option}")
    validate(config, tmp_path)
    assert not list(problems_of_settings(config, {}))
    is_own = option in ("mmupt", "geometry3k", "qwen2_5_vl_7b")
    assert config.mmupt.run_folder == f"runs/{recipe if is_own else f'{recipe}-{option}'}"


def test_every_recipe_and_option_says_what_it_is_in_one_line() -> None:
    lines = listing().splitlines()
    for names in (recipes(), *map(options, GROUPS)):
        for name, summary in names.items():
            assert summary and any(line.split()[:1] == [name] and line.endswith(f"  {summary}") for line in lines)
    assert len(recipes()) <= 20 and max(map(len, lines)) <= 140


def test_a_run_is_named_after_its_recipe_and_the_options_that_are_not_the_recipes_own() -> None:
    choices = ["hardware=gpu_1x80gb", "model=qwen2_5_vl_3b", "method=lmsi", "dataset=geometry3k"]
    assert shipped("mmupt_geometry3k", *choices).trainer.experiment_name == "mmupt_geometry3k-lmsi-qwen2_5_vl_3b"
    assert shipped("mmupt_tiny_unlearned", "dataset=figures").mmupt.name == "mmupt_tiny_unlearned-figures"
    assert shipped("mmupt_tiny_unlearned", "dataset=figures_unseen").mmupt.name == "mmupt_tiny_unlearned"


def test_a_given_name_is_kept_and_is_that_of_the_folder() -> None:
    config = shipped("mmupt_tiny", "method=supervised", "data.train_max_samples=64", "mmupt.name=a_tenth")
    assert (config.mmupt.name, config.mmupt.run_folder) == ("a_tenth", "runs/a_tenth")
    with pytest.raises(RecipeError, match=r"mmupt\.name=a/b must be the name of a folder, without /"):
        load_recipe("mmupt_tiny", ["mmupt.name=a/b"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=lsmi", "there is no method 'lsmi'; did you mean 'lmsi'? Known: all_questions, careful, direct"),
        (
            "dataset=mmr2",
            "there is no dataset 'mmr2'; did you mean 'mmr1'? Known: aime2024, amc, figures, figures_hard",
        ),
        (
            "model=qwen",
            "there is no model 'qwen'; .* Known: glm4_1v_9b, mm_eureka, qwen2_5_vl_32b, qwen2_5_vl_3b",
        ),
        ("hardware=gpu", "there is no hardware 'gpu'; .* Known: cpu, gpu_1x24gb"),
        ("+async=colocated", "there is no async 'colocated'; did you mean 'colocate'? Known: colocate"),
        ("async=colocate", r"chooses no async by itself: give \+async=colocate"),
    ],
)
def test_an_unknown_option_lists_the_known_ones(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")):
        load_recipe("mmupt_tiny", [override])


def test_an_unknown_option_in_a_recipe_is_named_with_the_recipe(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - mmupt_tiny\n  - override method: lsmi\n  - _self_\n")
    with pytest.raises(RecipeError, match=r"recipe mine: there is no method 'lsmi'"):
        load_recipe("mine")


def test_an_option_that_the_recipe_would_undo_is_refused_unless_the_command_line_decides(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - mmupt_tiny\n  - _self_\ndata:\n  train_files: mine.parquet\n")
    with pytest.raises(RecipeError, match=r"method=direct sets data\.train_files to .*, and the recipe itself to mine"):
        load_recipe("mine", ["method=direct"])
    assert load_recipe("mine", ["method=direct", "data.train_files=mine.parquet"])[0].mmupt.name == "mine-direct"
    # What is only said about a run is the recipe's to say.
    assert shipped("mmupt_tiny_unlearned", "method=supervised").mmupt.paper_method is None


def test_a_new_baseline_is_one_new_option_that_brings_the_keys_of_all(new_recipe: Path) -> None:
    option = "# @package _global_\ndefaults:\n  - /baseline\n  - _self_\nmmupt:\n  baseline:\n    method: lmsi\n"
    (new_recipe.parent / "method" / "shortest.yaml").write_text(option)
    config, _ = load_recipe("mmupt_tiny", ["method=shortest", "mmupt.baseline.rows=5"])
    assert (config.mmupt.name, config.mmupt.baseline.method) == ("mmupt_tiny-shortest", "lmsi")
    assert config.mmupt.baseline.rows == 5 and config.mmupt.baseline.sft.epochs == 1


def test_the_data_sets_whose_files_a_recipe_names_are_those_that_are_prepared() -> None:
    assert shipped("mmupt_mathvista").mmupt.datasets == ["mmr1", "mathvista", "wemath"]
    assert shipped("mmupt_geometry3k", "method=all_questions").mmupt.datasets == [
        "geometry3k",
        "geometry3k_in_context",
        "geometry3k_direct",
    ]
    assert shipped("mmupt_tiny", "mmupt.datasets=[]").mmupt.datasets == []
    assert shipped("mmupt_smoke", "data.train_files=datasets/mine/a.parquet", "data.val_files=b").mmupt.datasets == []


def test_every_field_of_the_base_and_of_the_hardware_options_has_a_comment_above_it() -> None:
    for file in [CONFIG_FOLDER / "base.yaml", CONFIG_FOLDER / "baseline.yaml", *CONFIG_FOLDER.glob("hardware/*.yaml")]:
        fields = file.read_text().split("- _self_\n")[-1]
        lines = [line.strip() for line in fields.splitlines()]
        for above, line in pairwise(lines):
            if line and not line.startswith("#") and not line.endswith(":"):
                assert above.startswith("#"), f"{file.name}: no comment above {line!r}"


def test_n_is_declared_once_and_read_from_there_everywhere() -> None:
    config, _ = load_recipe("mmupt_tiny", ["actor_rollout_ref.rollout.n=5"])
    assert config.actor_rollout_ref.actor.rollout_n == config.trainer.v1.sampler.sampler_kwargs.n == 5


def test_overrides_of_the_command_line_win() -> None:
    config, choices = load_recipe("mmupt_tiny", ["trainer.total_training_steps=3", "trainer.logger=[console]"])
    assert config.trainer.total_training_steps == 3 and config.trainer.logger == ["console"]
    assert choices["hardware"] == "cpu"
    assert load_recipe("mmupt_tiny", ["hardware=gpu_1x80gb"])[0].trainer.device == "cuda"


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=f"no recipe 'mmupt_tyni'; known recipes: {', '.join(recipes())}"):
        load_recipe("mmupt_tyni")


def test_a_misspelt_override_is_named_with_the_nearest_key() -> None:
    with pytest.raises(RecipeError, match=r"trainer\.total_step=3: .*did you mean 'trainer\.total_\w+'"):
        load_recipe("mmupt_tiny", ["trainer.total_step=3"])


@pytest.mark.parametrize(
    ("block", "key", "nearest"),
    [
        ("trainer:\n  total_epoch: 3\n", "trainer.total_epoch", "trainer.total_epochs"),
        ("actor_rollout_ref:\n  rolout:\n    n: 3\n", "actor_rollout_ref.rolout", "actor_rollout_ref.rollout"),
        ("mmupt:\n  evaluation_sample: 4\n", "mmupt.evaluation_sample", "mmupt.evaluation_samples"),
        (
            "reward:\n  reward_kwargs:\n    vote:\n      tye: all\n",
            "reward.reward_kwargs.vote.tye",
            "reward.reward_kwargs.vote.tie",
        ),
    ],
)
def test_a_misspelt_key_or_block_in_a_recipe_is_named_with_file_and_nearest_key(
    new_recipe: Path, block: str, key: str, nearest: str
) -> None:
    new_recipe.write_text(f"# Mine.\ndefaults:\n  - base\n  - hardware: cpu\n  - _self_\n{block}")
    with pytest.raises(RecipeError, match=rf"mine\.yaml: there is no key '{key}'; did you mean '{nearest}'"):
        load_recipe("mine")


def test_a_recipe_over_another_recipe_is_checked_through_all_its_files(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - mmupt_tiny\n  - _self_\ntrainer:\n  test_freq: 1\n")
    assert load_recipe("mine")[0].trainer.test_freq == 1
    option = new_recipe.parent / "method" / "soft.yaml"
    option.write_text(option.read_text().replace("reward: soft", "rewards: soft"))
    with pytest.raises(RecipeError, match=r"method/soft\.yaml: there is no key 'reward\.reward_kwargs\.vote\.rewards'"):
        load_recipe("mine")
    option.write_text(option.read_text().replace("rewards: soft", "reward: soft"))
    parent = new_recipe.with_name("mmupt_tiny.yaml")
    parent.write_text(parent.read_text().replace("save_freq", "save_frequency"))
    with pytest.raises(RecipeError, match=r"mmupt_tiny\.yaml: there is no key 'trainer\.save_frequency'"):
        load_recipe("mine")


def test_a_new_recipe_is_one_new_file(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - base\n  - hardware: cpu\n  - _self_\ntrainer:\n  test_freq: 1\n")
    assert recipes()["mine"] == "Mine."
    assert load_recipe("mine")[0].trainer.test_freq == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward.reward_kwargs.vote.tie=first", r"reward_kwargs\.vote: tie must be one of none, all, seeded"),
        ("+reward.reward_kwargs.vote.ties=all", r"reward_kwargs\.vote: there is no key 'ties'; did you mean 'tie'"),
        ("reward.reward_kwargs.vote.vote_n=4", r"vote_n=4 is less than the 8 responses"),
    ],
)
def test_a_vote_that_cannot_be_is_refused_with_the_recipe_before_anything_starts(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe mmupt_tiny: .*{message}"):
        load_recipe("mmupt_tiny", [override])


def test_the_blocks_of_the_base_hold_every_field_with_its_default() -> None:
    reward_kwargs = load_recipe("mmupt_tiny", ["mmupt.seed=0"])[0].reward.reward_kwargs
    assert read_settings(reward_kwargs) == RewardSettings()
    assert set(reward_kwargs.vote) == {field.name for field in fields(VoteOptions)}
    assert set(reward_kwargs.answers) == {"extraction", *(field.name for field in fields(Comparison))}


def test_the_alarm_of_the_base_is_on_with_the_defaults_of_its_rule_and_reaches_the_sampler() -> None:
    config = shipped("mmupt_tiny")
    assert config.trainer.v1.sampler.sampler_kwargs.stop_on_collapse == config.mmupt.stop_on_collapse
    assert config.mmupt.stop_on_collapse == {"enable": True, **asdict(CollapseRule())}


def test_keys_that_are_passed_on_to_others_are_free() -> None:
    config, _ = load_recipe("mmupt_tiny", ["+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16"])
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.block_size == 16


# The table of hyper-parameters of MM-UPT (arXiv 2505.22453) and what its authors' code leaves at its default.
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
    # The released checkpoint.
    "trainer.total_training_steps": 80,
}


@pytest.fixture
def headline() -> DictConfig:
    return shipped("mmupt_mathvista")


@pytest.mark.parametrize("key", PAPER)
def test_the_headline_has_the_papers_value(headline: DictConfig, key: str) -> None:
    value = OmegaConf.select(headline, key, throw_on_missing=True)
    assert (OmegaConf.to_container(value) if OmegaConf.is_config(value) else value) == PAPER[key]


def test_a_step_has_four_updates_of_1280_sequences(headline: DictConfig) -> None:
    n, update = headline.actor_rollout_ref.rollout.n, headline.actor_rollout_ref.actor.ppo_mini_batch_size
    assert update * n == 1280 and headline.data.train_batch_size // update == 4


def test_only_the_headline_stops_early_and_all_others_run_the_papers_episodes() -> None:
    for recipe in ("mmupt_geometry3k", "mmupt_geoqa", "mmupt_mmr1", "mmupt_thinklite"):
        config = shipped(recipe)
        assert (config.trainer.total_training_steps, config.trainer.total_epochs) == (None, 15)


def test_an_advantage_is_over_the_unbiased_deviation_plus_a_millionth(headline: DictConfig) -> None:
    # Rewards so close that the millionth shows: mean 1e-6, unbiased deviation 2**0.5 * 1e-6.
    rewards, mask = torch.tensor([[0.0], [2e-6]]), torch.ones(2, 1)
    by_deviation = headline.algorithm.norm_adv_by_std_in_grpo
    group = np.array(["one", "one"])
    advantages, _ = compute_grpo_outcome_advantage(rewards, mask, group, norm_adv_by_std_in_grpo=by_deviation)
    assert advantages.flatten().tolist() == pytest.approx([-1 / (2**0.5 + 1), 1 / (2**0.5 + 1)], rel=1e-3)


def test_the_kl_term_of_a_token_is_at_most_ten(headline: DictConfig) -> None:
    kind = headline.actor_rollout_ref.actor.kl_loss_type
    near, far = kl_penalty_forward(torch.tensor([-1.0, -9.0]), torch.tensor([-2.0, -1.0]), kind).tolist()
    # exp(-1) + 1 - 1, and exp(8) - 8 - 1 without the clamp.
    assert near == pytest.approx(np.exp(-1)) and far == 10


def test_a_prompt_is_the_question_a_space_and_the_instruction_with_no_system_message(tmp_path: Path) -> None:
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
def test_the_supervised_control_differs_in_labels_and_reward_alone(recipe: str) -> None:
    supervised, unlabelled = (
        flatten(OmegaConf.to_container(shipped(recipe, f"method={method}"), resolve=True))
        for method in ("supervised", "mmupt")
    )
    # What is said about the run, and where it writes, follows from its name.
    said = ("mmupt.report_note", "mmupt.paper_method")
    follows = (
        "trainer.",
        "mmupt.name",
        "mmupt.run_folder",
        *said,
        "data.cache_dir",
        "data.dropped_rows",
        "actor_rollout_ref.rollout.trace.experiment_name",
    )
    changed = {key for key in supervised | unlabelled if supervised.get(key) != unlabelled.get(key)}
    # The sampler is told which reward it is.
    reward = {"reward.reward_manager.name", "trainer.v1.sampler.sampler_kwargs.reward_manager"}
    named = {key for key in changed if key.startswith(follows)} - reward
    assert changed - named == {"data.supervised", *reward}
    assert supervised["mmupt.paper_method"] == "GRPO with labels"
    assert all(f"{recipe}-supervised" in supervised[key] for key in named - set(said))


def test_the_methods_that_the_options_stand_for_are_those_of_the_paper() -> None:
    configs = [shipped("mmupt_geometry3k", f"method={method}") for method in options("method")]
    named = {config.mmupt.paper_method for config in configs} - {None}
    assert named == {row.method for row in read_paper().rows} - {read_paper().base.method}


HARDWARE = sorted(file.stem for file in CONFIG_FOLDER.glob("hardware/*.yaml"))


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("recipe", [("mmupt_smoke",), ("mmupt_mathvista", "model=qwen2_5_vl_3b", "method=supervised")])
def test_a_hardware_option_goes_with_any_recipe(
    recipe: tuple[str, ...], hardware: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    config, choices = load_recipe(recipe[0], [*recipe[1:], f"hardware={hardware}"])
    assert choices["hardware"] == hardware
    validate(config, tmp_path)
    assert not list(_problems_of_hardware(config, choices, gpus=0))
    assert (config.trainer.device == "cpu") == (config.mmupt.gpu_memory_gib is None)


@pytest.mark.parametrize(
    ("recipe", "option"),
    [("mmupt_tiny", "colocate"), ("mmupt_tiny", "separate_cpu"), ("mmupt_mathvista", "separate")],
)
def test_an_asynchronous_option_goes_with_a_recipe_and_verls_settings(recipe: str, option: str, tmp_path: Path) -> None:
    config, choices = load_recipe(recipe, [f"+async={option}"])
    assert choices["async"] == option
    validate(config, tmp_path)
    assert list(problems_of_settings(config, {})) == list(problems_of_settings(shipped(recipe), {}))


def test_the_gpus_that_only_judge_are_counted() -> None:
    config, choices = load_recipe("mmupt_mathvista", ["method=self_judge", "reward.reward_model.n_gpus_per_node=2"])
    (problem,) = _problems_of_hardware(config, choices, gpus=8)
    assert "needs 10 GPUs per machine (8 to train, 2 to judge), and 8 answered" in problem
    assert not list(_problems_of_hardware(config, choices, gpus=10))
    assert devices(config) == 10


def test_the_gpus_that_only_generate_are_counted() -> None:
    config, choices = load_recipe("mmupt_mathvista", ["+async=separate", "actor_rollout_ref.rollout.n_gpus_per_node=4"])
    (problem,) = _problems_of_hardware(config, choices, gpus=8)
    assert "needs 12 GPUs per machine (8 to train, 4 to generate), and 8 answered" in problem
    assert not list(_problems_of_hardware(config, choices, gpus=12))
    assert devices(config) == 12


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["+async=separate"], "backend=nccl needs GPUs: on the CPU, use \\+async=separate_cpu"),
        (
            ["+async=separate_cpu", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
            "set trainer.v1.separate_async.parameter_sync_step=4",
        ),
    ],
)
def test_what_an_asynchronous_trainer_would_refuse_late_is_refused_at_once(overrides: list[str], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe("mmupt_tiny", overrides)


def test_what_joins_a_cluster_leaves_cpus_and_gpus_to_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked_for() -> list[int | None]:
        ray_init = recipe_run.prepare_run("mmupt_tiny", []).ray_kwargs.ray_init
        return [ray_init.num_cpus, ray_init.num_gpus]

    assert asked_for() == [16, 16]
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert asked_for() == [None, None]


FORCED_BY_24_GB = {
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.actor.optim.lr",
}


@pytest.mark.parametrize("hardware", [name for name in HARDWARE if name.startswith("gpu_")])
def test_a_gpu_option_changes_nothing_of_the_paper_but_what_24_gb_force(hardware: str) -> None:
    config, _ = load_recipe("mmupt_mathvista", [f"hardware={hardware}"])
    # The paper's own machine.
    free = {f"trainer.{key}" for key in ("nnodes", "n_gpus_per_node")}
    free.add("actor_rollout_ref.rollout.tensor_model_parallel_size")
    changed = {key for key in set(PAPER) - free if OmegaConf.select(config, key) != PAPER[key]}
    assert changed == (FORCED_BY_24_GB if hardware == "gpu_1x24gb" else set())


def test_the_recipe_to_copy_composes_once_copied_with_options_of_all_groups(new_recipe: Path, tmp_path: Path) -> None:
    shutil.copy("examples/my_recipe.yaml", new_recipe)
    for chosen in ([], ["method=lmsi", "model=qwen2_5_vl_7b", "hardware=gpu_4x80gb", "+async=colocate"]):
        config, _ = load_recipe("mine", chosen)
        validate(config, tmp_path)
    assert config.mmupt.run_folder == "runs/mine-lmsi-qwen2_5_vl_7b"


@pytest.mark.parametrize("method", BASELINES)
@pytest.mark.parametrize("recipe", ["mmupt_tiny", "mmupt_tiny_hard", "mmupt_geometry3k"])
def test_a_baseline_has_the_policy_the_rows_and_the_rollouts_of_what_it_is_compared_with(
    recipe: str, method: str
) -> None:
    baseline, grpo = shipped(recipe, f"method={method}"), shipped(recipe)
    assert baseline.mmupt.baseline.method == method
    for key in ("actor_rollout_ref.model", "data.train_files", "mmupt.evaluation_files"):
        assert OmegaConf.select(baseline, key) == OmegaConf.select(grpo, key)
    # Genixer has 16 responses, and on the hard task two others 12, which veRL's actor is told, too.
    has_own = method == "genixer" or (recipe == "mmupt_tiny_hard" and method in ("lmsi", "rejection_sft"))
    of_n = {"rollout.n", "actor.rollout_n"} if has_own else set()
    changed = {f"{part}.{key}" for part in ("actor", "rollout") for key in _changed(baseline, grpo, part)}
    assert changed <= {"rollout.trace", *of_n}
    # Those of the tiny model have what was best of the rates that all were tried with.
    rates = LEARNING_RATES if recipe.startswith("mmupt_tiny") else (grpo.actor_rollout_ref.actor.optim.lr,)
    assert {baseline.mmupt.baseline[trainer].learning_rate for trainer, _ in BASELINES[method].stages} <= set(rates)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_uses_more_rows_of_the_hard_task_but_no_more_than_it_has(method: str) -> None:
    easy, hard = (shipped(recipe, f"method={method}").mmupt.baseline for recipe in ("mmupt_tiny", "mmupt_tiny_hard"))
    assert easy.rows < hard.rows <= signature(write_figures).parameters["train"].default
    # All else that a baseline needs for the tiny model holds for both.
    assert {key for key in easy if easy[key] != hard[key]} == {"rows"}


def test_no_task_trains_the_untrained_control() -> None:
    for recipe in ("mmupt_tiny", "mmupt_tiny_hard"):
        assert shipped(recipe, "method=careful").trainer.total_training_steps == 0


def _changed(one: DictConfig, other: DictConfig, part: str) -> set[str]:
    block, same = one.actor_rollout_ref[part], other.actor_rollout_ref[part]
    return {str(key) for key in block if block[key] != same.get(key)}


def test_the_tiny_model_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_recipe("mmupt_tiny")[0].actor_rollout_ref.model.path == "recipes/mmupt/tiny/model"
    monkeypatch.chdir(tmp_path)
    path = Path(load_recipe("mmupt_tiny")[0].actor_rollout_ref.model.path)
    assert path.is_absolute() and (path / "model.safetensors").is_file()
    given = "actor_rollout_ref.model.path=recipes/mine"
    assert load_recipe("mmupt_tiny", [given])[0].actor_rollout_ref.model.path == "recipes/mine"
