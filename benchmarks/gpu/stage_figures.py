"""The figures of a stage: settings, workload, time, speed and memory, from the files of its run."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.gpu.machine import CardMemory, card_name
from benchmarks.gpu.model_flops import PEAK_FLOPS, flops
from benchmarks.gpu.phase_figures import estimated, phases_of, summary
from benchmarks.gpu.stages import Stage, image_of
from mmupt.models import shape_of
from verl_ext.metric_names import ENGINE_CORRELATION, ENGINE_DIFFERENCE, PROMPT_LENGTH, RESPONSE_LENGTH

# Keys of the composed recipe that decide time and memory.
SETTINGS = (
    "actor_rollout_ref.model.override_config.attn_implementation",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.model.use_fused_kernels",
    "actor_rollout_ref.model.fused_kernel_options.impl_backend",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.model.lora_rank",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.use_dynamic_bsz",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.actor.fsdp_config.model_dtype",
    "actor_rollout_ref.actor.fsdp_config.param_offload",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.max_model_len",
    "actor_rollout_ref.rollout.max_num_seqs",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    "actor_rollout_ref.rollout.enforce_eager",
    "actor_rollout_ref.rollout.agent.num_workers",
    "algorithm.rollout_correction.bypass_mode",
    "trainer.n_gpus_per_node",
)


def figures(stage: Stage, model: Path, run_folder: Path, card: CardMemory, launched: float) -> dict[str, Any]:
    """Return the figures of a run; if it failed midway, those of its finished steps.

    Args:
        stage, model: the stage and its model folder.
        run_folder: folder of the run.
        card: memory samples of the cards during the run.
        launched: start of the run, in seconds since the epoch.
    """
    config_file = run_folder / "config.yaml"
    if not config_file.is_file():
        return {}
    config = OmegaConf.load(config_file)
    assert isinstance(config, DictConfig)
    notes = _read_lines(run_folder / "phases.jsonl")
    # veRL's file logger writes one file, in a folder named after the project.
    files = (run_folder / config.trainer.project_name).glob("*.jsonl")
    metrics = [line["data"] for file in files for line in _read_lines(file)]
    settings = {key: OmegaConf.select(config, key) for key in SETTINGS}
    result: dict[str, Any] = {"settings": settings, "estimate_gib": estimated(config, model)}
    begins = [note["begin"] for note in notes if note.get("phase") == "step"]
    result["start_s"] = round(min(begins) - launched, 1) if begins else None
    result["steps"] = [phases_of(step) for step in metrics]
    result["phases"] = summary(result["steps"], notes, card, result["estimate_gib"])
    if metrics:
        last = metrics[-1]
        result["workload"] = workload(stage, model, last)
        result["update"] = update_rate(stage, model, last, result["phases"]["update_actor"]["seconds"], config)
        names = (ENGINE_CORRELATION, ENGINE_DIFFERENCE)
        result["vllm_against_actor"] = {name.removeprefix("training/"): last.get(name) for name in names}
    return result


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, without a truncated last line; [] if the file is missing."""
    if not file.is_file():
        return []
    records = []
    for line in file.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def workload(stage: Stage, model: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the work of a step: model, prompts, responses and their sizes."""
    shape = shape_of(str(model))
    tokens, side = image_of(stage, model)
    return {
        "model": stage.model or "tiny",
        "parameters": None if shape is None else shape.parameters,
        "recipe": stage.recipe,
        "prompts": stage.prompts,
        "responses_per_prompt": stage.responses,
        "image_px": [side, side],
        "visual_tokens": tokens,
        "prompt_tokens": metrics[PROMPT_LENGTH],
        "response_tokens": metrics[RESPONSE_LENGTH],
    }


def update_rate(
    stage: Stage, model: Path, metrics: Mapping[str, Any], seconds: float, config: DictConfig
) -> dict[str, Any]:
    """Return model FLOP/s per card and MFU of an update, on its wall-clock time.

    Responses to a prompt share the work on its image if they are in one micro-batch, which depends on the batch:
    `least` counts an image once per prompt, `most` once per response.
    """
    from transformers import AutoConfig

    hf_config = AutoConfig.from_pretrained(model)
    patches = image_of(stage, model)[1] // hf_config.vision_config.patch_size
    length = round(metrics[PROMPT_LENGTH] + metrics[RESPONSE_LENGTH])
    work = flops(hf_config, length, patches, patches)
    cards = config.trainer.n_gpus_per_node * config.trainer.nnodes
    sequences = stage.prompts * stage.responses
    rates = {
        "least": (sequences * work.update_language + stage.prompts * work.update_vision) / seconds / cards,
        "most": sequences * work.update / seconds / cards,
    }
    peak = PEAK_FLOPS.get(card_name() or "")
    # veRL guesses the peak of a CPU, and logs 0 for an unknown card or model.
    verl_mfu = metrics.get("perf/mfu/actor") if config.trainer.device == "cuda" else None
    return {
        "model_tflops_per_second": {name: round(rate / 1e12, 6) for name, rate in rates.items()},
        "mfu": {name: None if peak is None else round(rate / peak, 4) for name, rate in rates.items()},
        "mfu_of_verl": verl_mfu or None,
    }
