"""Every shipped recipe and option composes and passes veRL's own validation; an unknown key is named with its file."""

import shutil
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path

import pytest
from composed_recipes import shipped, validate
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass

from mmupt import recipe_files
from mmupt.compose import NAMING_GROUPS, RecipeError, load_recipe
from mmupt.recipe_files import CONFIG_FOLDER, GROUPS, listing, options, recipes
from mmupt.runtime.preflight import problems_of_settings
from verl_ext.answers import Comparison
from verl_ext.collapse import CollapseRule
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import RewardSettings, read_settings
from verl_ext.votes import VoteOptions


@pytest.fixture
def new_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path for a new recipe, in a copy of the config folder."""
    monkeypatch.setattr(recipe_files, "CONFIG_FOLDER", Path(shutil.copytree(CONFIG_FOLDER, tmp_path / "config")))
    return tmp_path / "config" / "mine.yaml"


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
def test_the_header_of_a_shipped_recipe_has_its_summary_and_how_to_launch_it(recipe: str) -> None:
    header = (CONFIG_FOLDER / f"{recipe}.yaml").read_text().split("defaults:")[0]
    for word in ("# Data ", "# Hardware ", "# Launch ", "# Override "):
        assert word in header
    assert recipes()[recipe] in header


CHOICES = [("mmupt_geometry3k", group, option) for group in NAMING_GROUPS for option in options(group)]

CHOICES += [("mmupt_tiny", "method", method) for method in options("method")]


@pytest.mark.parametrize(("recipe", "group", "option"), CHOICES)
def test_an_option_composes_passes_verls_validation_and_has_its_own_run_folder(
    recipe: str, group: str, option: str, tmp_path: Path
) -> None:
    config = shipped(recipe, f"{group}={option}")
    validate(config, tmp_path)
    assert not list(problems_of_settings(config, {}))
    is_own = option in ("mmupt", "geometry3k", "qwen2_5_vl_7b")
    assert config.mmupt.run_folder == f"runs/{recipe if is_own else f'{recipe}-{option}'}"


def test_every_recipe_and_option_has_a_one_line_summary() -> None:
    lines = listing().splitlines()
    for names in (recipes(), *map(options, GROUPS)):
        for name, summary in names.items():
            assert summary and any(line.split()[:1] == [name] and line.endswith(f"  {summary}") for line in lines)
    assert len(recipes()) <= 20 and max(map(len, lines)) <= 140


def test_a_run_is_named_after_its_recipe_and_the_options_that_replace_the_recipes_own() -> None:
    choices = ["hardware=gpu_1x80gb", "model=qwen2_5_vl_3b", "method=lmsi", "dataset=geometry3k"]
    assert shipped("mmupt_geometry3k", *choices).trainer.experiment_name == "mmupt_geometry3k-lmsi-qwen2_5_vl_3b"
    assert shipped("mmupt_tiny_unlearned", "dataset=figures").mmupt.name == "mmupt_tiny_unlearned-figures"
    assert shipped("mmupt_tiny_unlearned", "dataset=figures_unseen").mmupt.name == "mmupt_tiny_unlearned"


def test_a_given_name_is_kept_and_names_the_run_folder() -> None:
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


@pytest.mark.parametrize("other", ["mine", "other"])
def test_a_recipe_that_builds_on_itself_is_refused(new_recipe: Path, other: str) -> None:
    new_recipe.write_text(f"# Mine.\ndefaults:\n  - {other}\n  - _self_\n")
    if other != "mine":
        new_recipe.with_name("other.yaml").write_text("# Other.\ndefaults:\n  - mine\n  - _self_\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml builds on itself \(mine -> (other -> )?mine\): remove one of"):
        load_recipe("mine")


def test_a_file_for_both_training_and_validation_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"a\.parquet is in data\.train_files and in data\.val_files: validate on an"):
        load_recipe("mmupt_tiny", ["data.train_files=[a.parquet,b.parquet]", "data.val_files=./a.parquet"])


def test_an_option_that_the_recipe_would_undo_is_refused_unless_the_command_line_decides(new_recipe: Path) -> None:
    new_recipe.write_text("# Mine.\ndefaults:\n  - mmupt_tiny\n  - _self_\ndata:\n  train_files: mine.parquet\n")
    with pytest.raises(RecipeError, match=r"method=direct sets data\.train_files to .*, and the recipe itself to mine"):
        load_recipe("mine", ["method=direct"])
    assert load_recipe("mine", ["method=direct", "data.train_files=mine.parquet"])[0].mmupt.name == "mine-direct"
    # The recipe may replace keys that only describe the run.
    assert shipped("mmupt_tiny_unlearned", "method=supervised").mmupt.paper_method is None


def test_a_new_baseline_is_one_new_option_with_the_keys_of_all_baselines(new_recipe: Path) -> None:
    option = "# @package _global_\ndefaults:\n  - /baseline\n  - _self_\nmmupt:\n  baseline:\n    method: lmsi\n"
    (new_recipe.parent / "method" / "shortest.yaml").write_text(option)
    config, _ = load_recipe("mmupt_tiny", ["method=shortest", "mmupt.baseline.rows=5"])
    assert (config.mmupt.name, config.mmupt.baseline.method) == ("mmupt_tiny-shortest", "lmsi")
    assert config.mmupt.baseline.rows == 5 and config.mmupt.baseline.sft.epochs == 1


def test_the_data_sets_whose_files_a_recipe_uses_are_prepared() -> None:
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


def test_all_copies_of_n_follow_the_rollouts_n() -> None:
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


def test_an_unknown_key_suggests_a_key_with_the_same_last_part_or_a_group() -> None:
    overrides = {"train_batch_size=8": "data.train_batch_size", "metod=lmsi": "method", "xyz=1": None}
    with pytest.raises(RecipeError) as refused:
        load_recipe("mmupt_tiny", list(overrides))
    for override, suggestion in overrides.items():
        hint = f"; did you mean '{suggestion}'?" if suggestion else ""
        assert f"override {override}: there is no key '{override.partition('=')[0]}'{hint}\n" in f"{refused.value}\n"


def test_all_values_of_the_wrong_type_or_out_of_range_are_named_together() -> None:
    overrides = {
        "trainer.total_training_steps=abc": "training_steps must be null or a whole number of at least 0, not 'abc'",
        "trainer.save_freq=often": "trainer.save_freq must be a number, not 'often'",
        "data.shuffle=maybe": "data.shuffle must be True or False, not 'maybe'",
        "data.train_batch_size=null": "data.train_batch_size must be a whole number of at least 1, not None",
        "actor_rollout_ref.rollout.temperature=-1": "rollout.temperature must be a number above 0, not -1",
        "mmupt.stop_on_collapse=off": "mmupt.stop_on_collapse must be a block of keys, not 'off'",
        "trainer.lr=1": "there is no key 'trainer.lr'",
    }
    with pytest.raises(RecipeError, match="7 problems:") as refused:
        load_recipe("mmupt_tiny", list(overrides))
    for message in overrides.values():
        assert message in str(refused.value), message


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


def test_a_misspelt_key_is_found_in_every_file_that_a_recipe_builds_on(new_recipe: Path) -> None:
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
def test_impossible_vote_settings_are_refused_when_the_recipe_is_loaded(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe mmupt_tiny: .*{message}"):
        load_recipe("mmupt_tiny", [override])


def test_the_base_lists_every_reward_setting_with_its_default() -> None:
    reward_kwargs = load_recipe("mmupt_tiny", ["mmupt.seed=0"])[0].reward.reward_kwargs
    assert read_settings(reward_kwargs) == RewardSettings()
    assert set(reward_kwargs.vote) == {field.name for field in fields(VoteOptions)}
    assert set(reward_kwargs.answers) == {"extraction", *(field.name for field in fields(Comparison))}


def test_the_collapse_alarm_is_on_with_the_rules_defaults_and_reaches_the_sampler() -> None:
    config = shipped("mmupt_tiny")
    assert config.trainer.v1.sampler.sampler_kwargs.stop_on_collapse == config.mmupt.stop_on_collapse
    assert config.mmupt.stop_on_collapse == {"enable": True, **asdict(CollapseRule())}


def test_any_key_is_allowed_in_blocks_that_are_passed_on_to_vllm() -> None:
    config, _ = load_recipe("mmupt_tiny", ["+actor_rollout_ref.rollout.engine_kwargs.vllm.block_size=16"])
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.block_size == 16


def test_the_example_recipe_composes_with_options_of_all_groups(new_recipe: Path, tmp_path: Path) -> None:
    shutil.copy("examples/my_recipe.yaml", new_recipe)
    for overrides in ([], ["method=lmsi", "model=qwen2_5_vl_7b", "hardware=gpu_4x80gb", "+async=colocate"]):
        config, _ = load_recipe("mine", overrides)
        validate(config, tmp_path)
    assert config.mmupt.run_folder == "runs/mine-lmsi-qwen2_5_vl_7b"


def test_the_tiny_model_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_recipe("mmupt_tiny")[0].actor_rollout_ref.model.path == "recipes/mmupt/tiny/model"
    monkeypatch.chdir(tmp_path)
    path = Path(load_recipe("mmupt_tiny")[0].actor_rollout_ref.model.path)
    assert path.is_absolute() and (path / "model.safetensors").is_file()
    override = "actor_rollout_ref.model.path=recipes/mine"
    assert load_recipe("mmupt_tiny", [override])[0].actor_rollout_ref.model.path == "recipes/mine"
