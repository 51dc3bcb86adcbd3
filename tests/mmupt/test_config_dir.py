"""`--config-dir`: recipes and options outside the checkout, which cannot replace ours or veRL's."""

import shutil
from pathlib import Path

import pytest

from mmupt.cli import main
from mmupt.compose import RecipeError, load_recipe, use_config_dir
from mmupt.recipe_files import CONFIG_DIR_VARIABLE, options, recipes

RECIPE = (
    "# My own.\ndefaults:\n  - mmupt_tiny\n  - override model: mine\n  - _self_\ntrainer:\n  total_training_steps: 7\n"
)
MODEL = "# @package _global_\n# My model.\nactor_rollout_ref:\n  model:\n    path: my/model\n"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    # monkeypatch restores only variables that it has set itself, and `use_config_dir` sets this variable.
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my configs, 1=2"
    (folder / "model").mkdir(parents=True)
    (folder / "my_own.yaml").write_text(RECIPE)
    (folder / "model" / "mine.yaml").write_text(MODEL)
    (folder / "unrelated").mkdir()
    (folder / "unrelated" / "list.yaml").write_text("[1, 2]")
    return folder


def test_recipes_and_options_of_a_config_dir_are_added_to_ours(folder: Path) -> None:
    ours = recipes()
    use_config_dir(folder)
    assert recipes() == dict(sorted({**ours, "my_own": "My own."}.items()))
    assert options("model")["mine"] == "My model." and "tiny" in options("model")
    config, choices = load_recipe("my_own", ["hardware=gpu_1x80gb"])
    assert config.actor_rollout_ref.model.path == "my/model" and config.trainer.total_training_steps == 7
    assert (choices["model"], choices["hardware"], config.mmupt.name) == ("mine", "gpu_1x80gb", "my_own")
    config, _ = load_recipe("mmupt_tiny", ["model=mine"])
    assert config.actor_rollout_ref.model.path == "my/model"


def test_the_example_recipe_composes_in_a_config_dir(folder: Path) -> None:
    shutil.copy("examples/my_recipe.yaml", folder)
    use_config_dir(folder)
    config, _ = load_recipe("my_recipe")
    assert config.data.train_files == "my/train.parquet" and config.mmupt.run_folder == "runs/my_recipe"


@pytest.mark.parametrize("name", ["mmupt_tiny", "base", "model/tiny", "ppo_trainer"])
def test_a_file_with_the_name_of_ours_or_verls_is_refused(folder: Path, name: str) -> None:
    (folder / f"{name}.yaml").write_text("# Mine.\n")
    with pytest.raises(RecipeError, match=rf"--config-dir: .*1=2/{name}\.yaml has the name of .*{name}\.yaml: rename"):
        use_config_dir(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine", "trainer:\n  total_epochs: [1\n", r"mine\.yaml is not YAML: .* line"),
        ("model/own", "trainer: [\n", r"model/own\.yaml is not YAML"),
        ("mine", "trainer:\n  total_epochs: 1\n", "recipe mine builds on no other"),
        (
            "mine",
            "defaults:\n  - mmupt_tiny\n  - _self_\ntrainer:\n  total_epochs: ${no.key}\n",
            r"recipe mine: trainer\.total_epochs: Interpolation key 'no\.key' not found",
        ),
    ],
)
def test_a_file_that_cannot_be_composed_is_named(folder: Path, name: str, content: str, message: str) -> None:
    (folder / f"{name}.yaml").write_text(content)
    use_config_dir(folder)
    with pytest.raises(RecipeError, match=message):
        load_recipe("mine" if name == "mine" else "my_own")


def test_an_unknown_key_is_named_with_the_path_of_its_file(folder: Path) -> None:
    (folder / "my_own.yaml").write_text(RECIPE.replace("total_training_steps", "total_steps"))
    use_config_dir(folder)
    with pytest.raises(RecipeError, match=r"1=2/my_own\.yaml: there is no key 'trainer\.total_steps'"):
        load_recipe("my_own")


@pytest.mark.parametrize(
    "words", [["recipes"], ["train", "my_own"], ["table"], ["self-improve", "my_own"], ["memory", "my_own"]]
)
def test_a_missing_config_dir_is_a_one_line_error(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"error: --config-dir: there is no folder .*absent"):
        main([*words, "--config-dir", str(tmp_path / "absent")])


def test_processes_that_a_command_starts_use_the_config_dir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    arguments = ["--recipes", "my_own", "--seeds", "1", "--folder", "table", "--config-dir", folder.name]
    # The process of the table composes the recipe, and the process of the run refuses it before it starts.
    with pytest.raises(SystemExit, match="these runs failed"):
        main(["table", *arguments, "actor_rollout_ref.rollout.n=2", "trainer.save_freq=0"])
    log = Path("table", "logs", "table.log").read_text()
    assert "trainer.save_freq must be at least 1" in log and "there is no recipe" not in log
