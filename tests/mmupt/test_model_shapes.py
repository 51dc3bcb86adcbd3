"""Shapes have as many parameters as the models that transformers builds from the same config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from composed_recipes import shipped
from omegaconf import DictConfig, OmegaConf
from peft import LoraConfig, get_peft_model
from torch.nn import Linear
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig

from mmupt.models import MODEL_FAMILIES, ModelShape, shape_of
from mmupt.recipe_files import options
from mmupt.training.adapters import ATTENTION, DELTA_NET, MLP, SHARED_EXPERT, excludes_vision, problems_of_adapters

PUBLISHED = [(family, name) for family in MODEL_FAMILIES.values() for name in family.configs]

QWEN3_TEXT = {
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 72,
}
QWEN3_VISION = {
    "depth": 4,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_heads": 2,
    "patch_size": 6,
    "spatial_merge_size": 3,
    "num_position_embeddings": 49,
    "deepstack_visual_indexes": [1, 2],
    "out_hidden_size": 40,
}
QWEN2_TEXT = {**QWEN3_TEXT, "num_attention_heads": 5, "num_key_value_heads": 1}
SMALL: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": QWEN2_TEXT,
        "vision_config": {
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_heads": 2,
            "patch_size": 6,
            "spatial_merge_size": 3,
            "out_hidden_size": 40,
        },
    },
    "qwen3": QWEN3_TEXT,
    "qwen3_vl": {"text_config": QWEN3_TEXT, "vision_config": QWEN3_VISION},
    "qwen3_vl_moe": {
        "text_config": {**QWEN3_TEXT, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
        "vision_config": QWEN3_VISION,
    },
    "qwen3_5": {
        "text_config": {
            **QWEN3_TEXT,
            "num_hidden_layers": 6,
            "linear_conv_kernel_dim": 3,
            "linear_key_head_dim": 7,
            "linear_value_head_dim": 9,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        "vision_config": {name: size for name, size in QWEN3_VISION.items() if name != "deepstack_visual_indexes"},
    },
    "qwen3_5_moe": {
        "text_config": {
            **QWEN3_TEXT,
            "num_hidden_layers": 6,
            "linear_conv_kernel_dim": 3,
            "linear_key_head_dim": 7,
            "linear_value_head_dim": 9,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 11,
        },
        "vision_config": {name: size for name, size in QWEN3_VISION.items() if name != "deepstack_visual_indexes"},
    },
    "glm4v": {
        "text_config": QWEN2_TEXT,
        "vision_config": {
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 52,
            "out_hidden_size": 40,
            "num_heads": 2,
            "image_size": 30,
            "patch_size": 6,
            "spatial_merge_size": 3,
        },
    },
}


def on_meta(model_type: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """Build the model of a config.json on the meta device, without memory for weights."""
    full_config = AutoConfig.for_model(model_type, **json.loads(json.dumps(dict(config))))
    auto_class = AutoModelForImageTextToText if hasattr(full_config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model: torch.nn.Module = auto_class.from_config(full_config)
    return model


def parameters(model: torch.nn.Module, part: str = "") -> int:
    return sum(weight.numel() for name, weight in model.named_parameters() if part in name)


def layers(model: torch.nn.Module) -> list[int]:
    """Return the number of parameters of every layer of the language model and the vision tower."""
    lists = [module for name, module in model.named_modules() if name.endswith(("layers", ".blocks"))]
    return [parameters(layer) for module in lists for layer in module.children()]


def assert_same(shape: ModelShape, model: torch.nn.Module) -> None:
    assert shape.parameters == parameters(model)
    assert (shape.vision.parameters if shape.vision else 0) == parameters(model, "visual.")
    expected = [*shape.language.layers, *(shape.vision.layers if shape.vision else ())]
    assert sorted(layer.parameters for layer in expected) == sorted(layers(model))


@pytest.mark.parametrize(("family", "name"), PUBLISHED, ids=[name for _, name in PUBLISHED])
def test_a_published_model_has_the_parameters_of_its_architecture(family: Any, name: str) -> None:
    shape = shape_of(name)
    assert shape is not None
    assert_same(shape, on_meta(family.name, family.configs[name]))


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("0.8B", 873_438_784),
        ("2B", 2_274_069_824),
        ("4B", 4_659_865_088),
        ("9B", 9_653_104_368),
        ("27B", 27_781_427_952),
        ("35B-A3B", 35_951_822_704),
    ],
)
def test_a_qwen3_5_has_the_parameters_that_the_hub_counts_in_its_files(size: str, count: int) -> None:
    shape = shape_of(f"Qwen/Qwen3.5-{size}")
    assert shape is not None
    # The files have another attention layer, which predicts a second token; transformers does not build it.
    hidden, layer = shape.language.hidden, shape.language.layers[3]
    assert shape.parameters + layer.parameters + 2 * hidden**2 + 3 * hidden == count


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", MODEL_FAMILIES)
def test_every_size_is_read_from_config_json(model_type: str, tied: bool, tmp_path: Path) -> None:
    config = {**SMALL[model_type], "tie_word_embeddings": tied, "model_type": model_type}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(str(tmp_path))
    assert shape is not None and shape.language.tied == tied
    assert_same(shape, on_meta(model_type, {name: value for name, value in config.items() if name != "model_type"}))


@pytest.mark.parametrize("exclude_modules", [".*visual.*", None])
@pytest.mark.parametrize("model_type", [name for name in MODEL_FAMILIES if "vision_config" in SMALL[name]])
def test_adapters_are_on_the_linear_layers_that_peft_finds(model_type: str, exclude_modules: str | None) -> None:
    shape = MODEL_FAMILIES[model_type].read_shape(SMALL[model_type])
    settings = LoraConfig(r=3, target_modules="all-linear", exclude_modules=exclude_modules, task_type="CAUSAL_LM")
    model = get_peft_model(on_meta(model_type, SMALL[model_type]), settings)  # type: ignore[arg-type]
    with_vision = not excludes_vision(exclude_modules)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert shape.adapters(3, with_vision) == sum(weight.numel() for weight in trained)
    assert with_vision == any(weight.requires_grad for name, weight in model.named_parameters() if "visual." in name)


def composed(option: str) -> DictConfig:
    return shipped("mmupt_geometry3k", f"model={option}")


@pytest.mark.parametrize("option", options("model"))
def test_the_shape_of_every_model_option_is_known(option: str) -> None:
    config = composed(option)
    shape = shape_of(config.actor_rollout_ref.model.path)
    assert shape is not None
    if shape.vision is None:
        assert config.data.max_pixels is None
    else:
        # vLLM would silently drop adapters of the vision tower.
        assert excludes_vision(config.actor_rollout_ref.model.exclude_modules)


LORA = "actor_rollout_ref.model.lora_rank=8"
MERGE = "actor_rollout_ref.model.lora.merge=True"
NO_EXCLUSION = "actor_rollout_ref.model.exclude_modules=null"


def adapter_problems(option: str, *overrides: str) -> list[str]:
    config = composed(option).copy()
    OmegaConf.set_struct(config, False)
    config.merge_with_dotlist([*overrides])
    return list(problems_of_adapters(config))


def test_adapters_of_the_vision_tower_that_vllm_would_drop_are_refused() -> None:
    (problem,) = adapter_problems("qwen3_vl_4b", LORA, NO_EXCLUSION)
    assert "vLLM would leave them out: set actor_rollout_ref.model.exclude_modules='.*visual.*'" in problem
    served = "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_tower_connector_lora=True"
    for fixed in ((LORA,), (LORA, NO_EXCLUSION, served), (LORA, NO_EXCLUSION, MERGE)):
        assert adapter_problems("qwen3_vl_4b", *fixed) == []
    assert adapter_problems("qwen3_8b", LORA) == adapter_problems("qwen3_vl_4b") == []


@pytest.mark.parametrize("model_type", MODEL_FAMILIES)
def test_the_linear_layers_of_every_family_are_known_by_name(model_type: str) -> None:
    linear = [name for name, module in on_meta(model_type, SMALL[model_type]).named_modules() if type(module) is Linear]
    layers = {name.partition(".layers.")[2].partition(".")[2] for name in linear if "visual" not in name} - {""}
    known = {part for block in (ATTENTION, DELTA_NET, MLP, SHARED_EXPERT) for parts in block.values() for part in parts}
    assert layers - known == ({"mlp.shared_expert_gate"} if model_type == "qwen3_5_moe" else set())


@pytest.mark.parametrize("option", options("model"))
def test_the_adapters_of_every_model_option_are_served(option: str) -> None:
    assert adapter_problems(option, LORA) == []


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that writes the config.json of a model type and returns the override with its folder."""

    def folder(model_type: str) -> str:
        folder = tmp_path_factory.mktemp(model_type)
        AutoConfig.for_model(model_type, **SMALL[model_type]).save_pretrained(folder)
        return f"actor_rollout_ref.model.path={folder}"

    return folder


def test_an_adapter_of_a_shared_experts_gate_is_refused_with_any_option(folder_of: Any) -> None:
    path = folder_of("qwen3_5_moe")
    (problem,) = adapter_problems("qwen2_5_vl_7b", LORA, path)
    assert "gate of the shared expert" in problem and path.partition("=")[2] in problem
    exclude = "actor_rollout_ref.model.exclude_modules"
    for fixed in (
        f"{exclude}=.*(visual|shared_expert_gate).*",
        f"{exclude}=[visual,shared_expert_gate,qkv,proj,linear_fc1,linear_fc2]",
        "actor_rollout_ref.model.target_modules=[q_proj,v_proj]",
    ):
        assert adapter_problems("qwen2_5_vl_7b", LORA, path, fixed) == [], fixed
    assert adapter_problems("qwen3_5_35b_a3b", LORA, path) == []
    # Without LoRA no module needs to be excluded.
    assert adapter_problems("qwen2_5_vl_7b", path) == []


@pytest.mark.parametrize("model_type", SMALL)
def test_merged_adapters_are_refused_for_a_model_with_experts(model_type: str, folder_of: Any) -> None:
    problems = adapter_problems("qwen2_5_vl_7b", LORA, MERGE, folder_of(model_type))
    if model_type.endswith("_moe"):
        (problem,) = problems
        assert "lora.merge=True does not go with" in problem and "Set it to False" in problem
    else:
        assert problems == []


@pytest.mark.parametrize(
    ("model_type", "missing"),
    [
        ("qwen3", "gate_up_proj, down_proj"),
        ("glm4v", "gate_up_proj, down_proj"),
        ("qwen3_5", "in_proj_qkvz, in_proj_ba, out_proj, gate_up_proj, down_proj"),
    ],
)
def test_adapters_that_the_model_option_does_not_serve_are_refused(
    model_type: str, missing: str, folder_of: Any
) -> None:
    path = folder_of(model_type)
    (problem,) = adapter_problems("qwen3_vl_30b_a3b", LORA, path)
    assert f"adapters of {missing} would be trained" in problem
    attention = "actor_rollout_ref.model.target_modules=[q_proj,k_proj,v_proj,o_proj]"
    served = "actor_rollout_ref.rollout.engine_kwargs.vllm.lora_target_modules"
    for fixed in (attention, f"{served}=null"):
        assert adapter_problems("qwen3_vl_30b_a3b", LORA, path, fixed) == [], fixed


def test_a_model_that_only_the_hub_knows_is_checked_by_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "qwen3_moe", "num_experts": 128, "shared_expert_intermediate_size": 0}
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", lambda name: (config, {}))
    path = "actor_rollout_ref.model.path=someone/finetuned"
    assert adapter_problems("qwen3_8b", LORA, path) == []
    (problem,) = adapter_problems("qwen3_8b", LORA, MERGE, path)
    assert "someone/finetuned, which has experts" in problem


def test_the_page_of_recipes_lists_every_model_option_with_its_parameters() -> None:
    page = (Path(__file__).parents[2] / "recipes" / "mmupt" / "README.md").read_text()
    lines = page.partition("| option | parameters")[2].partition("\n\n")[0].splitlines()[2:]
    listed = {}
    for line in lines:
        names, sizes, *_ = line.strip("|").split("|")
        size_per_name = sizes.split(",") if "," in sizes else [sizes] * len(names.split(","))
        listed |= dict(zip((name.strip(" `") for name in names.split(",")), size_per_name, strict=True))
    assert listed.keys() == options("model").keys()
    for option, size in listed.items():
        shape = shape_of(composed(option).actor_rollout_ref.model.path)
        assert shape is not None
        decimals = len(size.strip().partition(".")[2])
        assert round(shape.parameters / 1e9, decimals) == float(size), option
