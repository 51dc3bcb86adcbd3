"""The stages of `full_stack.py`: model, recipe and sizes of each, and the overrides of a run."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import phase_log
from benchmarks.gpu.random_model import TINY_PREFIX
from mmupt.compose import as_override
from mmupt_data.figure_task import SIZE

MEGAPIXEL = 1_003_520

# Room for the text of a prompt in tokens; instruction, question and chat template take about 80.
TEXT_TOKENS = 256


@dataclass(frozen=True)
class Stage:
    """A run of whole steps.

    model: Hugging Face name of a published model with this shape; None for the trained tiny model of this repository.
    pixels: minimum area of an image in px; None keeps the size of the figures.
    keeps_policy: whether the run uses the whole launcher and writes a checkpoint and an export.
    """

    model: str | None
    recipe: str
    overrides: tuple[str, ...]
    prompts: int
    responses: int
    pixels: int | None
    response_tokens: int
    steps: int
    keeps_policy: bool = False


@dataclass(frozen=True)
class ActorStage:
    """A log-probability pass and an update without vLLM, in a shape of `actor_step.py`."""

    shape: str


QWEN2_5_VL_3B, QWEN3_VL_4B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"

# In the order of the first run: the most informative stages per minute come first.
STAGES: dict[str, Stage | ActorStage] = {
    # Does it run at all? Training, checkpoint and export of the recipe that the CPU tests run.
    "tiny": Stage(
        None,
        "mmupt_tiny",
        (
            "hardware=gpu_1x80gb",
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
            "actor_rollout_ref.rollout.enforce_eager=True",
        ),
        prompts=32,
        responses=8,
        pixels=None,
        response_tokens=32,
        steps=3,
        keeps_policy=True,
    ),
    "3b": Stage(QWEN2_5_VL_3B, "mmupt_smoke", (), 64, 8, MEGAPIXEL, 512, 3),
    "7b_actor": ActorStage("7b"),
    # All in bf16: fp32 takes 16 bytes per parameter, which leaves no room on 80 GB.
    "qwen3_vl_4b": Stage(
        QWEN3_VL_4B,
        "mmupt_smoke",
        ("model=qwen3_vl_4b", "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16"),
        64,
        8,
        MEGAPIXEL,
        512,
        3,
    ),
}

TINY_SHAPES = {QWEN2_5_VL_3B: f"{TINY_PREFIX}qwen2_5_vl", QWEN3_VL_4B: f"{TINY_PREFIX}qwen3_vl"}


def on_cpu(stage: Stage | ActorStage) -> Stage | ActorStage:
    """Return the stage for two CPU cores: the same launcher, code and checks, with tiny shapes and few tokens."""
    if isinstance(stage, ActorStage):
        return ActorStage("tiny")
    small = replace(stage, prompts=4, responses=4, response_tokens=16, steps=min(stage.steps, 2))
    if stage.model is None:
        return replace(small, overrides=("hardware=cpu",))
    return replace(small, model=TINY_SHAPES[stage.model], overrides=("hardware=cpu",), pixels=112 * 112)


@dataclass(frozen=True)
class Variant:
    """Changes of a recipe; None keeps the recipe's value."""

    fused_kernels: str | None = None
    tokens_per_gpu: int | None = None
    attention: str | None = None

    @property
    def name(self) -> str:
        """Its changes joined by hyphens, or `recipe`; for tables and file names."""
        fused = self.fused_kernels and f"fused_{self.fused_kernels}"
        return "-".join(str(part) for part in (fused, self.tokens_per_gpu, self.attention) if part) or "recipe"

    def overrides(self, with_attention: bool = True) -> list[str]:
        """Return the overrides of a recipe, with or without those for the attention."""
        model, actor = "actor_rollout_ref.model", "actor_rollout_ref.actor"
        overrides = []
        if self.fused_kernels:
            overrides.append(f"{model}.use_fused_kernels={self.fused_kernels == 'on'}")
        if self.fused_kernels == "on":
            overrides.append(f"{model}.fused_kernel_options.impl_backend=torch")
        if self.tokens_per_gpu:
            overrides.append(f"{actor}.ppo_max_token_len_per_gpu={self.tokens_per_gpu}")
        if self.attention and with_attention:
            overrides.append(f"{model}.override_config.attn_implementation={self.attention}")
            # Packing without padding needs flash-attn.
            overrides.append(f"{model}.use_remove_padding={self.attention == 'flash_attention_2'}")
        return overrides


def overrides_of(stage: Stage, variant: Variant, model: Path, run_folder: Path) -> list[str]:
    """Return the recipe overrides for a run of a stage in a variant."""
    settings: dict[str, Any] = {
        "mmupt.run_folder": str(run_folder),
        "mmupt.evaluation_files": None,
        "data.train_files": "datasets/figures/train.parquet",
        "data.val_files": "datasets/figures/validation.parquet",
        "data.train_batch_size": stage.prompts,
        "data.max_response_length": stage.response_tokens,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_mini_batch_size": stage.prompts,
        "actor_rollout_ref.rollout.n": stage.responses,
        "actor_rollout_ref.rollout.ignore_eos": True,
        "trainer.total_training_steps": stage.steps,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": stage.steps,
        "trainer.logger": ["console", "file"],
    }
    if stage.pixels is not None:
        longest_prompt = image_of(stage, model)[0] + TEXT_TOKENS
        settings |= {
            "data.bad_rows": "stop",
            "data.min_pixels": stage.pixels,
            "data.max_pixels": 2 * stage.pixels,
            "data.max_prompt_length": longest_prompt,
            "actor_rollout_ref.rollout.max_model_len": longest_prompt + stage.response_tokens,
        }
    variables = {"VERL_USE_EXTERNAL_MODULES": phase_log.__name__, phase_log.FILE: str(run_folder / "phases.jsonl")}
    added = [f"+ray_kwargs.ray_init.runtime_env.env_vars.{as_override(*item)}" for item in variables.items()]
    changes = [as_override(key, value) for key, value in settings.items()]
    return ["dataset=figures", *stage.overrides, *changes, *variant.overrides(), *added]


def image_of(stage: Stage, model: Path) -> tuple[int, int]:
    """Return the visual tokens of a stage's image, and the side in px to which the model scales the square figures."""
    from transformers import AutoProcessor

    from verl_ext.datasets.pixel_limits import set_limits, token_side, visual_tokens

    processor = AutoProcessor.from_pretrained(model).image_processor
    tokens = visual_tokens(SIZE, SIZE, processor, set_limits(stage.pixels, stage.pixels and 2 * stage.pixels))
    assert tokens is not None, "a square is never refused"
    return tokens, math.isqrt(tokens) * token_side(processor)
