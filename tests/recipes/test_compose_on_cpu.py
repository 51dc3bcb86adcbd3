"""Every shipped recipe composes and passes veRL's own validation; a key that does not exist is named with its file."""

import shutil
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from recipes.mmupt import compose
from recipes.mmupt.compose import CONFIG_FOLDER, RecipeError, load_recipe, recipes
from verl_ext.answers import Comparison
from verl_ext.checks import REWARD_MANAGERS
from verl_ext.rewards.settings import RewardSettings, read_settings
from verl_ext.votes import VotePolicy


@pytest.fixture
def new_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path at which to write a recipe of one's own."""
    monkeypatch.setattr(compose, "CONFIG_FOLDER", Path(shutil.copytree(CONFIG_FOLDER, tmp_path / "config")))
    return tmp_path / "config" / "mine.yaml"


@pytest.mark.parametrize("recipe", recipes())
def test_a_shipped_recipe_composes_and_passes_verls_validation(recipe: str) -> None:
    config, _ = load_recipe(recipe)
    validate_config(config, need_reference_policy(config), need_critic(config))
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.agent.agent_loop_manager_class == "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
    assert config.reward.reward_manager.name in REWARD_MANAGERS
    assert need_reference_policy(config) and not need_critic(config)
    assert config.trainer.experiment_name == recipe


@pytest.mark.parametrize("recipe", recipes())
def test_a_shipped_recipe_opens_with_what_it_is_and_how_to_launch_it(recipe: str) -> None:
    header = (CONFIG_FOLDER / f"{recipe}.yaml").read_text().split("defaults:")[0]
    for word in ("# Data ", "# Hardware ", "# Launch ", "# Override "):
        assert word in header
    assert recipes()[recipe] in header


def test_every_field_of_the_base_and_of_the_hardware_options_has_a_comment_above_it() -> None:
    for file in [CONFIG_FOLDER / "base.yaml", *CONFIG_FOLDER.glob("hardware/*.yaml")]:
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
    parent = new_recipe.with_name("mmupt_tiny.yaml")
    parent.write_text(parent.read_text().replace("save_freq", "save_frequency"))
    with pytest.raises(RecipeError, match=r"mmupt_tiny\.yaml: there is no key 'trainer\.save_frequency'"):
        load_recipe("mine")


def test_a_new_recipe_is_one_new_file(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - base\n  - hardware: cpu\n  - _self_\ntrainer:\n  test_freq: 1\n")
    assert compose.recipes()["mine"] == "Mine."
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
    assert set(reward_kwargs.vote) == {field.name for field in fields(VotePolicy)}
    assert set(reward_kwargs.answers) == {"extraction", *(field.name for field in fields(Comparison))}


def test_keys_that_are_passed_on_to_others_are_free() -> None:
    config, _ = load_recipe("mmupt_tiny", ["+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16"])
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.block_size == 16


def test_the_base_holds_the_papers_settings() -> None:
    config, _ = load_recipe("mmupt_mathvista")
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    assert (rollout.n, rollout.temperature, rollout.top_p, rollout.tensor_model_parallel_size) == (10, 0.7, 0.99, 2)
    assert (data.train_batch_size, actor.ppo_mini_batch_size) == (512, 128)
    assert (config.algorithm.adv_estimator, config.algorithm.norm_adv_by_std_in_grpo) == ("grpo", True)
    assert (actor.loss_agg_mode, actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (
        "token-mean", 0.2, 0.3, 3.0,
    )  # fmt: skip
    assert (actor.use_kl_loss, actor.kl_loss_type, actor.kl_loss_coef) == (True, "low_var_kl", 0.01)
    optim = actor.optim
    assert (optim.optimizer, optim.lr, optim.lr_scheduler_type, optim.weight_decay) == ("AdamW", 1e-6, "constant", 1e-2)
    assert (optim.betas, optim.clip_grad, actor.grad_clip) == ([0.9, 0.999], 1.0, 1.0)
    assert (data.max_prompt_length, data.max_response_length) == (2048, 2048)
    assert data.instruction == r"Please reason step by step, and put your final answer within \boxed{}."
    assert (data.min_pixels, data.max_pixels, data.seed) == (262_144, 1_204_224, 1)
    assert not actor.freeze_vision_tower and config.actor_rollout_ref.model.enable_gradient_checkpointing
    assert actor.fsdp_config.mixed_precision.param_dtype == "bf16"
    assert (config.trainer.total_epochs, config.trainer.n_gpus_per_node) == (15, 8)
    assert OmegaConf.select(config, "algorithm.use_kl_in_reward") is False


def test_the_recipe_to_copy_composes_once_copied(new_recipe: Path) -> None:
    shutil.copy("examples/my_recipe.yaml", new_recipe)
    config, _ = load_recipe("mine")
    validate_config(config, need_reference_policy(config), need_critic(config))
