"""Which settings may change when a run is continued.

These settings affect only where, how fast and in how much memory a run trains, how long it trains, and what it reports,
such as the settings you adjust after an out-of-memory error.

All other settings, including keys that a user has added, belong to the method or the checkpoints: with another value it
would be a different run, or could not read its checkpoints.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.compose import as_override


def _below(prefixes: str, names: str) -> tuple[str, ...]:
    """Return every prefix joined with every name; both arguments are lists separated by spaces."""
    return tuple(f"{prefix}.{name}" for prefix in prefixes.split() for name in names.split())


# A pattern covers a key and all keys below it; `*` matches any text. All other keys are listed in
# tests/mmupt/test_resume_rules.py.
MAY_CHANGE = (
    *_below(
        "*",
        """calculate_entropy entropy_checkpointing entropy_from_logits_chunk_size entropy_from_logits_with_chunking
        forward_max_token_len_per_gpu forward_micro_batch_size forward_micro_batch_size_per_gpu
        log_prob_max_token_len_per_gpu log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu
        log_prob_use_dynamic_bsz pad_to_length ppo_max_token_len_per_gpu ppo_micro_batch_size
        ppo_micro_batch_size_per_gpu profiler ulysses_sequence_parallel_size use_dynamic_bsz use_fused_kernels
        use_prefix_grouper use_remove_padding use_torch_compile""",
    ),
    "global_profiler",
    *_below("data", "cache_dir dropped_rows filter_overlong_prompts_workers use_shm val_batch_size"),
    *_below(
        "*.model",
        """enable_activation_offload enable_gradient_checkpointing fused_kernel_options
        override_config.attn_implementation tiled_mlp use_liger use_shm""",
    ),
    *_below(
        "actor_rollout_ref.*.fsdp_config critic.fsdp",
        """forward_prefetch full_determinism offload_policy optimizer_offload pad_to_length_bucket param_offload
        reshard_after_forward use_no_sync_for_gradient_accumulation wrap_policy""",
    ),
    "actor_rollout_ref.nccl_timeout",
    *_below(
        "*.rollout distillation.teacher_models.*",
        """cudagraph_capture_sizes data_parallel_size disable_log_stats enable_chunked_prefill enable_prefix_caching
        enforce_eager expert_parallel_size free_cache_engine gpu_memory_utilization load_format max_num_batched_tokens
        max_num_seqs skip_tokenizer_init tensor_model_parallel_size""",
    ),
    *_below(
        "*.rollout",
        """agent.num_workers checkpoint_engine disaggregation enable_sleep_mode engine_kwargs full_determinism
        layered_summon moe_load_balance_metrics_interval multi_stage_wake_up n_gpus_per_node nnodes
        pipeline_model_parallel_size prometheus router_config_path scheduling_policy trace""",
    ),
    *_below("distillation", "n_gpus_per_node nnodes teacher_models.*.num_replicas"),
    *_below("mmupt.baseline", "dpo.micro_batch_size dpo.save_steps sft.micro_batch_tokens sft.save_steps"),
    *_below(
        "mmupt",
        """evaluation_files evaluation_forbidden_openings evaluation_samples fork_workers gpu_memory_gib leakage name
        paper_method report_note run_folder stop_on_collapse tracked_groups votes_per_step""",
    ),
    "ray_kwargs",
    *_below("reward", "num_workers reward_model.n_gpus_per_node reward_model.nnodes"),
    *_below("reward.sandbox_fusion sandbox_fusion", "max_concurrent memory_limit_mb"),
    *_below("reward_model", "n_gpus_per_node nnodes num_workers"),
    *_below(
        "trainer",
        """balance_batch device esi_redundant_time experiment_name log_val_generations logger max_actor_ckpt_to_keep
        max_critic_ckpt_to_keep n_gpus_per_node nnodes project_name ray_wait_register_center_timeout rollout_data_dir
        save_freq test_freq total_epochs total_training_steps val_before_train val_only validation_data_dir""",
    ),
    "trainer.v1.separate_async.hybrid_rollout",
    *_below(
        "trainer.v1.sampler.sampler_kwargs",
        "poll_interval stop_on_collapse tracked_groups trackers votes votes_per_step watchdog_seconds",
    ),
    "transfer_queue",
)

# Exceptions to MAY_CHANGE: the class that veRL builds from a section, and arguments of vLLM that change its samples.
KEPT = (
    "*._target_",
    *_below(
        "actor_rollout_ref.rollout.engine_kwargs.vllm",
        """dtype generation_config hf_overrides kv_cache_dtype limit_mm_per_prompt logits_processors logprobs_mode
        max_model_len mm_processor_kwargs override_generation_config quantization seed""",
    ),
)
# Another exception for asynchronous runs, whose checkpoints contain the transfer queue.
QUEUE = ("transfer_queue.backend",)


def is_covered(key: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches a dotted key or one of its parents."""
    return any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in patterns)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by their dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def why_another_run(before: DictConfig, now: DictConfig) -> str | None:
    """Return the changed settings that prevent continuing a run, as text with a fix; None if there are none.

    Keys that are references to another key are left out. Paths inside the folder of the run, or of the rounds that it
    belongs to, are compared relative to this folder, which may have been moved.
    """
    old, new = (flatten(OmegaConf.to_container(config, resolve=True)) for config in (before, now))
    kept = KEPT if before.trainer.v1.trainer_mode.startswith("sync") else KEPT + QUEUE
    references = set(_references(before)) & set(_references(now))
    changed = [
        key
        for key in sorted(old | new)
        if _relative(old.get(key), before) != _relative(new.get(key), now)
        and not is_covered(key, (name for name, _ in references))
        and (is_covered(key, kept) or not is_covered(key, MAY_CHANGE))
    ]
    if not changed:
        return None
    lines = (f"\n  {key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} here" for key in changed)
    fixes = [as_override(key, old[key]) for key in changed if key in old]
    fixes += [f"no {key}" for key in changed if key not in old]
    return f"{''.join(lines)}\nTo continue it, give {' '.join(fixes)}"


def _relative(value: Any, config: DictConfig) -> Any:
    """Replace the folder that moves with a run by `RUN` at the start of a path, or of each path in a list."""
    if isinstance(value, list):
        return [_relative(one, config) for one in value]
    folder = Path(config.mmupt.run_folder)
    # A round of self-improvement is FOLDER/round_N, and its runs are folders in it.
    folder = folder.parents[1] if folder.parent.name.startswith("round_") else folder
    if not (isinstance(value, str) and Path(value).is_relative_to(folder)):
        return value
    return f"RUN/{Path(value).relative_to(folder)}"


def _references(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of a configuration that are references to other keys, with the references."""
    for key, value in flatten(OmegaConf.to_container(config, resolve=False)).items():
        if isinstance(value, str) and "${" in value:
            yield key, value
