"""Language models without a vision tower: prompts, fine-tuning, and rows with images, which are dropped or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from response_rows import SETTINGS
from transformers import AutoConfig
from verl.trainer.ppo.utils import create_rl_dataset
from verl.utils import hf_processor
from verl.utils.model import get_hf_auto_model_class
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from mmupt.baselines.policy_client import rollout_settings
from mmupt.baselines.preference_pairs import PairCollator
from mmupt.baselines.sft import trainer_overrides
from mmupt.baselines.sft_responses import check_responses
from mmupt.compose import RecipeError, load_recipe
from mmupt.evaluation.messages import engine_prompt
from mmupt.evaluation.prompt_processor import load_processor
from mmupt.tiny.vocabulary import build_tokenizer
from mmupt.training.policy_evaluation import evaluation_settings
from mmupt.training.row_checks import PromptLengths, check_rows
from mmupt_data.figure_task import encode_png
from verl_ext.datasets.response_dataset import ResponseDataset
from verl_ext.datasets.response_tokens import turn_tokens

FIGURE = encode_png(Image.new("RGB", (84, 84)))
ASK, INSTRUCTION = "what is the sum of 2 and 4 ?", "think ."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of Qwen3 except its weights, with the tiny vocabulary."""
    folder = tmp_path_factory.mktemp("qwen3")
    tokenizer = build_tokenizer()
    # Like Qwen3's template: with thinking disabled, an empty thought is appended.
    tokenizer.chat_template += "{% if enable_thinking is defined and not enable_thinking %}think . {% endif %}"
    tokenizer.save_pretrained(folder)
    AutoConfig.for_model("qwen3", architectures=["Qwen3ForCausalLM"]).save_pretrained(folder)
    return folder


def row(id: str, question: str = ASK, *images: bytes) -> dict[str, Any]:
    prompt = [{"role": "user", "content": question}]
    return {"id": id, "prompt": prompt, "images": [{"bytes": image} for image in images]}


def recipe(folder: Path, model: Path, train: list[dict[str, Any]]) -> DictConfig:
    """A recipe that trains the model on these rows."""
    pq.write_table(pa.Table.from_pylist(train), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist([{**row("t", "how much ?"), "answer": "6"}]), folder / "test.parquet")
    overrides = [
        f"data.{key}={folder / name}.parquet" for key, name in (("train_files", "train"), ("val_files", "test"))
    ]
    overrides += [f"mmupt.run_folder={folder / 'run'}", "mmupt.evaluation_files=null"]
    overrides += [f"data.instruction='{INSTRUCTION}'"]
    return load_recipe("mmupt_aime2024", [*overrides, f"actor_rollout_ref.model.path={model}"])[0]


def rollout_tokens(model: Path, **chat_template_kwargs: Any) -> list[int]:
    """The tokens that veRL's agent loop makes of the prompt."""
    tokenizer = load_processor(str(model)).tokenizer
    assert hf_processor(str(model)) is None
    builder = create_continuous_token_builder(
        tokenizer, hf_model_type="qwen3", processor=None, chat_template_kwargs=chat_template_kwargs
    )
    return builder.build_initial_tokens([{"role": "user", "content": f"{ASK} {INSTRUCTION}"}])


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
def test_rollout_evaluation_and_fine_tuning_have_the_same_prompt(
    options: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    expected = rollout_tokens(model, **options)
    assert (expected == rollout_tokens(model)) == (not options)
    processor = load_processor(str(model), options)
    assert engine_prompt(row("a"), processor, {}, INSTRUCTION) == {"prompt_token_ids": expected}

    config = recipe(tmp_path, model, [row("a"), row("b", "how much is it ?")])
    check_rows(config)
    dataset = create_rl_dataset(config.data.train_files, config.data, processor.tokenizer, None)
    assert dataset[0]["raw_prompt"] == [{"role": "user", "content": f"{ASK} {INSTRUCTION}"}]

    response = "so \\boxed{6}"
    response_tokens = turn_tokens(processor.tokenizer, response)
    pq.write_table(pa.Table.from_pylist([{**row("a"), "response": response}]), tmp_path / "responses.parquet")
    settings = OmegaConf.create(
        {
            "cache_dir": str(tmp_path / "cache"),
            "instruction": INSTRUCTION,
            "min_pixels": None,
            "max_pixels": None,
            "max_length": 64,
            "apply_chat_template_kwargs": options,
            "seed": 1,
        }
    )
    example = ResponseDataset(str(tmp_path / "responses.parquet"), processor.tokenizer, settings, None)[0]
    assert example["input_ids"].tolist() == [*expected, *response_tokens]
    assert torch.equal(example["position_ids"], torch.arange(len(example["input_ids"])))
    assert example["multi_modal_inputs"] == {} and int(example["loss_mask"].sum()) == len(response_tokens)

    pair = {**row("a", f"{ASK} {INSTRUCTION}"), "chosen": response, "rejected": "so \\boxed{7}"}
    batch = PairCollator(processor)([pair])
    assert batch["input_ids"][0].tolist() == [*expected, *response_tokens] and "pixel_values" not in batch
    assert not batch["mm_token_type_ids"].any()


def test_the_length_of_a_prompt_is_counted_without_an_image_processor(model: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path, model, [row("a")])
    config.data.max_prompt_length = 1
    for options in ({}, {"enable_thinking": False}):
        config.data.apply_chat_template_kwargs = options
        (problem,) = PromptLengths(config, training=True).check(row("a"))
        assert problem.detail == f"{len(rollout_tokens(model, **options))} tokens, 0 of them images, over 1"


def test_evaluation_and_baselines_use_the_chat_template_arguments_of_the_recipe(tmp_path: Path) -> None:
    plain, no_thinking = (load_recipe("mmupt_aime2024", [f"model={name}"])[0] for name in ("qwen3_4b", "qwen3_8b"))
    assert no_thinking.data.apply_chat_template_kwargs == {"enable_thinking": False}
    for read in (
        lambda config: evaluation_settings(config, "before", "m"),
        lambda config: rollout_settings(config, "m"),
    ):
        assert read(plain).chat_template_kwargs is None and "chat_template_kwargs" not in read(plain).parameters([])
        assert read(no_thinking).parameters([])["chat_template_kwargs"] == {"enable_thinking": False}
    settings = replace(SETTINGS, chat_template_kwargs={"enable_thinking": False})
    overrides = trainer_overrides(settings, "m", tmp_path / "responses.parquet", tmp_path, rows=8)
    assert "+data.apply_chat_template_kwargs.enable_thinking=False" in overrides


def test_rows_with_images_are_unusable_for_a_model_without_a_vision_tower(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_image = row("b", f"<image>{ASK}", FIGURE)
    check_rows(recipe(tmp_path, model, [row("a"), with_image]))
    assert "row 1, id b: no vision tower (1 image, and the model reads only text)" in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"no row can be used; the first: .* no vision tower"):
        check_rows(recipe(tmp_path, model, [with_image]))
    responses = tmp_path / "responses.parquet"
    pq.write_table(pa.Table.from_pylist([{**with_image, "response": "so \\boxed{6}"}]), responses)
    with pytest.raises(ValueError, match=r"row 0, id b: it has images, but the model reads only text"):
        check_responses(responses, str(model), replace(SETTINGS, batch_size=1))


def test_a_text_only_model_is_loaded_as_a_causal_language_model(model: Path) -> None:
    # DPO and the export of adapters load this class.
    assert get_hf_auto_model_class(AutoConfig.from_pretrained(model)).__name__ == "AutoModelForCausalLM"
