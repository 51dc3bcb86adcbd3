"""The memory estimate counts the parameters of models, and the effects of a recipe's options."""

from math import prod
from typing import Any

import pytest
from composed_recipes import shipped
from safetensors import safe_open

from mmupt.models import ModelShape, shape_of
from mmupt.models.qwen2_5_vl import TEXT_7B, read_shape
from mmupt.tiny import FOLDER
from mmupt.training import memory_estimate
from mmupt.training.memory_estimate import activations, estimate, forward_activations, report


def known_shape(model: str) -> ModelShape:
    shape = shape_of(model)
    assert shape is not None
    return shape


SEVEN = known_shape("Qwen/Qwen2.5-VL-7B-Instruct")


def test_the_shape_of_the_tiny_model_has_the_parameters_of_its_file() -> None:
    shape = known_shape(str(FOLDER))
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        sizes = {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}
    assert shape.parameters == sum(sizes.values())
    assert shape.vision is not None
    assert shape.vision.parameters == sum(size for name, size in sizes.items() if "visual." in name)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("3B", 3_754_622_976), ("7B", 8_292_166_656), ("32B", 33_452_718_336), ("72B", 73_410_777_344)],
)
def test_known_shapes_have_the_parameters_of_the_published_models(size: str, parameters: int) -> None:
    assert known_shape(f"Qwen/Qwen2.5-VL-{size}-Instruct").parameters == parameters


def test_the_old_and_the_new_layout_of_a_config_give_the_same_shape() -> None:
    older = {"model_type": "qwen2_5_vl", **TEXT_7B, "vision_config": {"hidden_size": 1280, "in_chans": 3}}
    newer = {"model_type": "qwen2_5_vl", "text_config": TEXT_7B, "vision_config": {"depth": 32}}
    assert read_shape(older) == read_shape(newer) == SEVEN


def test_every_gpu_holds_its_shard_of_sixteen_bytes_per_parameter() -> None:
    update = estimate(shipped("mmupt_mathvista"), SEVEN).phases["update"]
    # 8.292e9 parameters x 4 bytes / 8 GPUs / 2^30 = 3.861 GiB.
    assert update["weights"] == update["gradients"] == pytest.approx(3.861, abs=1e-3)
    assert update["moments"] == pytest.approx(7.723, abs=1e-3)


ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
SHORT = f"{ACTOR}.ppo_max_token_len_per_gpu=4096"
WHOLE_LOGITS = f"{MODEL}.use_fused_kernels=False"


def in_gib(*parts: float) -> Any:
    return pytest.approx(sum(parts) * 1e9 / 2**30, rel=1e-3)


def test_activations_are_those_of_one_micro_batch() -> None:
    # In bytes, 4,096 tokens and 16,384 patches: 28 x 4,096 x 3,584 x 2 + 32 x 16,384 x 1,280 x 2 = 2.164e9 kept. The
    # output layer: 512 tokens x 152,064 x (5 x 4 + 2) = 1.713e9, and 2 x 152,064 x 3,584 x 2 = 2.180e9 of its gradient.
    assert activations(shipped("mmupt_mathvista", SHORT), SEVEN) == in_gib(2.164, 1.713, 2.180)
    # Logits of 4,096 x 152,064 x 2 = 1.246e9: four copies of packed sequences, six of padded ones.
    assert activations(shipped("mmupt_mathvista", SHORT, WHOLE_LOGITS), SEVEN) == in_gib(2.164, 4 * 1.246)
    padded = shipped("mmupt_mathvista", SHORT, WHOLE_LOGITS, f"{MODEL}.use_remove_padding=False")
    assert activations(padded, SEVEN) == in_gib(2.164, 6 * 1.246)
    offloaded = shipped("mmupt_mathvista", SHORT, f"{MODEL}.enable_activation_offload=True")
    assert activations(offloaded, SEVEN) == in_gib(1.713, 2.180)
    kept = shipped("mmupt_mathvista", SHORT, WHOLE_LOGITS, f"{MODEL}.enable_gradient_checkpointing=False")
    assert activations(kept, SEVEN) > 5 * activations(shipped("mmupt_mathvista", SHORT, WHOLE_LOGITS), SEVEN)


def test_log_probabilities_take_one_layer_or_the_logits() -> None:
    tokens = "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=8192"
    # One layer of 8,192 tokens: 8,192 x (10 x 3,584 + 4 x 18,944) x 2 = 1.829e9.
    assert forward_activations(shipped("mmupt_mathvista", tokens), SEVEN) == in_gib(1.829)
    # Logits of 8,192 tokens are 2.491e9: two copies with chunked entropy, five of padded sequences.
    whole = shipped("mmupt_mathvista", tokens, WHOLE_LOGITS)
    assert forward_activations(whole, SEVEN) == in_gib(2 * 2.491)
    padded = shipped("mmupt_mathvista", tokens, WHOLE_LOGITS, f"{MODEL}.use_remove_padding=False")
    assert forward_activations(padded, SEVEN) == in_gib(5 * 2.491)


def test_a_gradient_is_summed_over_ranks_in_fp32() -> None:
    # The table of 152,064 x 3,584 in bf16 and fp32, and an eighth of it in fp32: 545e6 x (2 + 4 + 0.5) = 3.543e9.
    assert estimate(shipped("mmupt_mathvista"), SEVEN).phases["update"]["reduced"] == in_gib(3.543)


def test_the_report_counts_the_requests_that_fit_into_the_cache_or_warns() -> None:
    # 4,096 tokens x 2 x 28 layers x 512 x 2 bytes / 2 GPUs = 0.117e9, of 47.4 - 7.72 - 2 GiB.
    assert "room for 344 requests of 4096 tokens, 0.11 GiB each" in report(shipped("mmupt_mathvista"))
    long = shipped(
        "mmupt_mathvista",
        "model=qwen2_5_vl_3b",
        "hardware=gpu_1x24gb",
        "actor_rollout_ref.rollout.max_model_len=128000",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.5",
    )
    assert "WARNING: vLLM may not start: a request of 128000 tokens takes 4.4 GiB of cache, and there" in report(long)


def test_offload_frees_the_gpu_for_generation_and_fills_main_memory() -> None:
    kept = estimate(shipped("mmupt_mathvista"), SEVEN)
    names = ("param_offload", "optimizer_offload")
    overrides = [f"actor_rollout_ref.actor.fsdp_config.{name}=True" for name in names]
    offloaded = estimate(shipped("mmupt_mathvista", *overrides), SEVEN)
    assert sum(offloaded.phases["generation"].values()) == pytest.approx(0.6 * 79 + memory_estimate.OTHER)
    assert offloaded.phases["update"] == kept.phases["update"]
    # The reference is in main memory in both: 8.292e9 x 4 bytes = 30.89 GiB; weights and two moments take three times
    # as much.
    assert kept.main_memory["model"] == pytest.approx(30.89, abs=0.01)
    assert offloaded.main_memory["model"] == pytest.approx(4 * 30.89, abs=0.04)


def test_images_take_main_memory_in_engines_queue_and_ranks() -> None:
    # 1,204,224 px x 3 bytes = 3.61 MB per image; x 512 = 1.723 GiB.
    one = estimate(shipped("mmupt_mathvista"), SEVEN).main_memory
    assert one["image features in the queue"] == one["images for the engines"] == pytest.approx(1.723, abs=1e-3)
    # A rank of 8 has 1 - (7/8)^10 = 73.7 % of the prompts, and a micro-batch of 24,576 tokens, 98,304 patches of 1,176
    # pixel values in fp32, twice: 0.861 GiB.
    assert one["image features in the ranks"] == pytest.approx(8 * (0.737 * 1.723 + 0.861), abs=0.01)
    two = estimate(shipped("mmupt_mathvista", "hardware=gpu_nodes_8x80gb"), SEVEN).main_memory
    assert two["image features in the queue"] == pytest.approx(1.723 / 2, abs=1e-3)
    # The batch of the step, and a batch in flight.
    ahead = estimate(shipped("mmupt_mathvista", "+async=colocate"), SEVEN).main_memory
    assert ahead["image features in the queue"] == pytest.approx(2 * 1.723, abs=2e-3)
    short = shipped("mmupt_mathvista", "data.max_pixels=null", "data.max_prompt_length=1024")
    assert estimate(short, SEVEN).main_memory["image features in the queue"] == pytest.approx(1.723 * 2 / 3, abs=1e-3)


def test_with_the_offload_policy_an_update_keeps_no_weights_on_the_gpu() -> None:
    update = estimate(shipped("mmupt_mathvista", "actor_rollout_ref.actor.fsdp_config.offload_policy=True"), SEVEN)
    assert set(update.phases["update"]) == {"gathered", "reduced", "activations", "other"}


def test_with_adapters_only_they_have_gradients_and_there_is_no_reference() -> None:
    config = shipped("mmupt_mathvista", "model=qwen2_5_vl_3b", "hardware=gpu_1x24gb")
    shape = known_shape(config.actor_rollout_ref.model.path)
    result = estimate(config, shape)
    adapters = shape.adapters(64, with_vision=False)
    assert result.phases["update"]["gradients"] == pytest.approx(adapters * 4 / 2**30)
    # Frozen weights and vLLM's copy of them in bf16, adapters and their two moments in fp32.
    assert result.main_memory["model"] == pytest.approx((4 * shape.parameters + 12 * adapters) / 2**30)


def test_adapters_of_the_vision_tower_count_unless_they_are_excluded() -> None:
    overrides = ("model=qwen2_5_vl_3b", "hardware=gpu_1x24gb")
    without = shipped("mmupt_mathvista", *overrides)
    with_tower = shipped("mmupt_mathvista", *overrides, "actor_rollout_ref.model.exclude_modules=null")
    shape = known_shape(without.actor_rollout_ref.model.path)
    trained = [estimate(config, shape).phases["update"]["gradients"] for config in (without, with_tower)]
    expected = [shape.adapters(64, with_vision) * 4 / 2**30 for with_vision in (False, True)]
    assert trained == pytest.approx(expected) and expected[0] < expected[1]


def test_a_language_model_has_no_images_in_main_memory() -> None:
    text = shipped("mmupt_mathvista", "model=qwen3_8b")
    result = estimate(text, known_shape(text.actor_rollout_ref.model.path))
    assert set(result.main_memory) == {"model"}
    assert result.phases["update"]["activations"] > 0


def test_weights_are_sharded_over_all_machines() -> None:
    one, two = (
        estimate(shipped("mmupt_mathvista", f"hardware={name}"), SEVEN).phases["update"]["weights"]
        for name in ("gpu_8x80gb", "gpu_nodes_8x80gb")
    )
    assert two == one / 2


def test_a_recipe_that_fits_is_reported_without_a_warning() -> None:
    text = report(shipped("mmupt_mathvista"))
    assert text.startswith("Estimate of GPU memory") and "not measured" in text and "WARNING" not in text


def test_the_report_of_a_recipe_that_does_not_fit_names_the_fix() -> None:
    text = report(shipped("mmupt_mathvista", "hardware=gpu_1x80gb"))
    assert "WARNING: update may run out of GPU memory: lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu" in text
    assert "WARNING: generation" not in text


def test_the_advice_names_existing_keys() -> None:
    config = shipped("mmupt_mathvista")
    for advice in memory_estimate.ADVICE.values():
        for word in advice.replace("=", " ").replace(",", " ").split():
            if word.startswith("actor_rollout_ref."):
                key = word.removeprefix("actor_rollout_ref.").split(".")
                node = config.actor_rollout_ref
                for name in key:
                    assert name in node, word
                    node = node[name]


def test_an_unknown_model_or_an_unknown_gpu_has_no_estimate() -> None:
    model = "actor_rollout_ref.model.path=somebody/some-model"
    assert report(shipped("mmupt_mathvista", model)).startswith("No estimate of GPU memory: the shape of somebody/some")
    assert "set mmupt.gpu_memory_gib" in report(shipped("mmupt_mathvista", "mmupt.gpu_memory_gib=null"))


def test_only_the_7b_model_on_one_gpu_does_not_fit() -> None:
    rows = memory_estimate.table().splitlines()[2:]
    assert len(rows) == len(memory_estimate.TABLE_ROWS)
    assert [row for row in rows if "does not fit" in row] == [
        row for row in rows if "qwen2_5_vl_7b" in row and "gpu_1x80gb" in row
    ]
