"""The GPU options have the values of docs/gpu_settings.md, and `explain` shows where the value of a key comes from."""

import re
from pathlib import Path
from typing import Any

import pytest
from composed_recipes import shipped
from omegaconf import DictConfig, OmegaConf

from mmupt.compose import RecipeError, load_recipe
from mmupt.key_sources import explain
from mmupt.models import shape_of
from mmupt.recipe_files import CONFIG_FOLDER, options

PAGE = Path("docs/gpu_settings.md")
HARDWARE = ("gpu_8x80gb", "gpu_1x80gb", "gpu_1x24gb")
GPU_OPTIONS = [name for name in options("hardware") if name != "cpu"]
# A character that Markdown needs escaped.
ESCAPED = re.compile(r"\\(.)")


def documented() -> list[tuple[str, str, str]]:
    """(key, hardware option, value) of every cell of the table."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.read_text().splitlines()]
    (head,) = (row for row in rows if row[0].startswith("| key below") or row[0].startswith("key below"))
    assert [name.strip("`") for name in head[1:4]] == list(HARDWARE)
    settings = [row for row in rows if len(row) == 5 and row[0].lstrip("| ").startswith("`")]
    return [
        (row[0].strip("|` "), hardware, ESCAPED.sub(r"\1", value))
        for row in settings
        for hardware, value in zip(HARDWARE, row[1:4], strict=True)
    ]


def composed(hardware: str) -> DictConfig:
    model = "qwen2_5_vl_7b" if "8x" in hardware or "4x" in hardware else "qwen2_5_vl_3b"
    return shipped("mmupt_mathvista", f"hardware={hardware}", f"model={model}")


def text(value: Any) -> str:
    return "null" if value is None else str(value)


@pytest.mark.parametrize(("key", "hardware", "value"), documented())
def test_a_gpu_recipe_has_the_documented_value(key: str, hardware: str, value: str) -> None:
    block, _, name = key.rpartition(".")
    node = OmegaConf.select(composed(hardware), f"actor_rollout_ref.{block}")
    assert name in node and text(node[name]) == value


def test_every_rollout_and_actor_key_of_a_gpu_option_is_documented() -> None:
    keys = {key for key, _, _ in documented()}
    for hardware in GPU_OPTIONS:
        option = OmegaConf.load(CONFIG_FOLDER / "hardware" / f"{hardware}.yaml")
        actor = option.get("actor_rollout_ref") or OmegaConf.create()
        for key in leaves(actor):
            assert key in keys, f"{hardware}: {key}"


def leaves(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, child in node.items():
        keys += leaves(child, f"{prefix}{name}.") if OmegaConf.is_dict(child) else [f"{prefix}{name}"]
    return keys


@pytest.mark.parametrize("hardware", GPU_OPTIONS)
def test_limits_of_micro_batches_follow_verls_guide(hardware: str) -> None:
    config = composed(hardware)
    sequence = config.data.max_prompt_length + config.data.max_response_length
    actor, rollout, ref = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "ref"))
    assert actor.ppo_max_token_len_per_gpu >= 2 * sequence
    assert rollout.log_prob_max_token_len_per_gpu >= actor.ppo_max_token_len_per_gpu
    assert ref.log_prob_max_token_len_per_gpu == rollout.log_prob_max_token_len_per_gpu
    assert rollout.max_model_len == sequence <= rollout.max_num_batched_tokens


@pytest.mark.parametrize("model", options("model"))
def test_the_largest_tensor_of_a_model_fits_into_a_transfer_bucket(model: str) -> None:
    config = shipped("mmupt_geometry3k", f"model={model}")
    shape = shape_of(config.actor_rollout_ref.model.path)
    assert shape is not None
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    assert bucket * 2**20 >= 4 * shape.language.vocabulary * shape.language.hidden


def test_the_adapters_of_the_24_gb_option_fit_into_its_bucket() -> None:
    config = composed("gpu_1x24gb")
    shape = shape_of(config.actor_rollout_ref.model.path)
    assert shape is not None
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    assert bucket * 2**20 >= 4 * shape.adapters(config.actor_rollout_ref.model.lora_rank, with_vision=False)


def test_qwen3_5_disables_prefix_caching_as_in_the_examples_of_verl() -> None:
    prefix_caching = {}
    for model in ("qwen3_5_4b", "qwen3_5_35b_a3b", "qwen3_vl_4b"):
        config = shipped("mmupt_geometry3k", f"model={model}")
        prefix_caching[model] = config.actor_rollout_ref.rollout.enable_prefix_caching
    assert prefix_caching == {"qwen3_5_4b": False, "qwen3_5_35b_a3b": False, "qwen3_vl_4b": True}


def test_max_model_len_defaults_to_the_length_of_prompt_plus_response() -> None:
    lengths = ["data.max_prompt_length=1000", "data.max_response_length=500"]
    assert load_recipe("mmupt_geometry3k", lengths)[0].actor_rollout_ref.rollout.max_model_len == 1500
    explicit = [*lengths, "actor_rollout_ref.rollout.max_model_len=3000"]
    assert load_recipe("mmupt_geometry3k", explicit)[0].actor_rollout_ref.rollout.max_model_len == 3000


# Explanations


def test_explain_shows_every_place_that_sets_a_key_with_its_comments() -> None:
    key = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
    lines = explain("mmupt_mathvista", ["hardware=gpu_1x24gb", f"{key}=9000"], key).splitlines()
    assert lines[0] == f"{key} = 9000"
    places = [line.strip() for line in lines if re.match(r"  \S", line)]
    assert places == [
        "veRL (actor/actor.yaml): 16384",
        "base (base.yaml): 24576",
        "hardware (hardware/gpu_1x24gb.yaml): 8192",
        f"command line ({key}=9000)",
    ]
    assert any("veRL's guide" in line for line in lines)


@pytest.mark.parametrize(
    ("recipe", "overrides", "key", "place"),
    [
        ("mmupt_thinklite", [], "mmupt.stop_on_collapse.enable", "recipe (mmupt_thinklite.yaml): False"),
        ("mmupt_tiny_lora", ["+async=colocate"], "data.train_batch_size", "recipe (mmupt_tiny.yaml): 32"),
        ("mmupt_smoke", [], "actor_rollout_ref.model.path", "model (model/qwen2_5_vl_3b.yaml): Qwen/Qwen2.5-VL-3B"),
        ("mmupt_smoke", ["method=supervised"], "data.supervised", "method (method/supervised.yaml): True"),
        ("mmupt_smoke", ["method=lmsi"], "mmupt.name", "launcher: the recipe, and the options of method, dataset and"),
    ],
)
def test_the_last_place_sets_the_value(recipe: str, overrides: list[str], key: str, place: str) -> None:
    lines = [line for line in explain(recipe, overrides, key).splitlines() if re.match(r"  \S", line)]
    assert lines[-1].strip().startswith(place)


def test_a_block_is_explained_key_by_key() -> None:
    parts = dict(part.split(" = ", 1) for part in explain("mmupt_smoke", [], "actor_rollout_ref").split("\n\n"))
    lines = {key.removeprefix("actor_rollout_ref."): text.splitlines() for key, text in parts.items()}
    assert lines["actor.fsdp_config.mixed_precision.param_dtype"][0] == "bf16"
    assert "  veRL (actor/actor.yaml): 3.0" in lines["actor.clip_ratio_c"]
    assert lines["rollout.max_model_len"][-1] == "  launcher: data.max_prompt_length + data.max_response_length"
    assert lines["rollout.enforce_eager"][0] == "True"
    assert any(line.startswith("  recipe (mmupt_smoke.yaml): True") for line in lines["rollout.enforce_eager"])


def test_an_unknown_key_is_refused_with_the_nearest_key() -> None:
    with pytest.raises(RecipeError, match=r"has no key 'actor_rollout_ref.actor.optim.lt'; did you mean .*optim.lr'"):
        explain("mmupt_smoke", [], "actor_rollout_ref.actor.optim.lt")
