"""Model folders and hub names that cannot be loaded, prompted or served are reported before a run starts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmupt.compose import load_recipe
from mmupt.evaluation.evaluate import load_evaluation_config as load_evaluation
from mmupt.evaluation.generation import EngineError, answer_questions
from mmupt.evaluation.generation_settings import GenerationSettings
from mmupt.runtime.model_checks import problems_of_model
from mmupt.runtime.preflight import problems_of_settings

MODEL = Path("recipes/mmupt/tiny/model")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(MODEL, tmp_path / "my model")


def problems(model: Path | str, **environ: str) -> str:
    return "\n".join(problems_of_model(str(model), "model", {"HOME": "/nowhere", **environ}))


def test_a_complete_model_folder_has_no_problem(model: Path) -> None:
    assert not problems(model)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "is not a model folder: it has no config.json"),
        ("chat_template.jinja", "has no chat template: copy chat_template.jinja"),
        ("processor_config.json", "has no processor"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_an_incomplete_model_folder_is_refused(model: Path, file: str, message: str) -> None:
    (model / file).unlink()
    assert message in problems(model) and str(model) in problems(model)


def test_a_language_model_without_a_vision_tower_needs_no_processor(model: Path) -> None:
    (model / "processor_config.json").unlink()
    (model / "config.json").write_text('{"model_type": "qwen3"}')
    assert not problems(model)


def test_a_chat_template_may_be_in_the_tokenizer_config_or_the_recipe(model: Path) -> None:
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    assert not list(problems_of_model(str(model), "model", {}, has_template=True))
    settings: dict[str, Any] = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    assert not problems(model)


def test_an_evaluation_starts_no_engine_for_an_incomplete_model_folder(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    settings = GenerationSettings.from_config(
        load_evaluation([f"model='{model}'"]), device="cpu", dtype="float32", replicas=1
    )
    with pytest.raises(EngineError, match=r"model: .*my model has no chat template"):
        next(answer_questions(settings, []))


def test_a_path_that_vllm_reads_as_a_glob_pattern_is_refused(model: Path) -> None:
    odd = model.rename(model.with_name("my [1] model"))
    assert "choose a folder without [, * and ?" in problems(odd)
    config, _ = load_recipe("mmupt_tiny", ["mmupt.run_folder='runs/my [1] run'"])
    assert "because vLLM loads the trained model from it" in "".join(problems_of_settings(config, {"HOME": "/nowhere"}))


def test_git_lfs_pointers_instead_of_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "is a Git LFS pointer" in problems(model)


def test_a_model_that_is_neither_a_folder_nor_on_the_hub_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "./none", "models/qwen/none", "none"):
        assert "there is no such folder" in problems(name)
    assert not problems("owner/name", HOME=str(tmp_path))
    assert "HF_HUB_OFFLINE forbids" in problems("owner/name", HF_HUB_OFFLINE="1")
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert not problems("owner/name", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub"))
