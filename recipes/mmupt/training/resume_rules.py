"""Which settings may change when a run is continued.

A run that goes on with another method, or from checkpoints that it cannot read, is another run. Everything that changes
only where, how fast and in how much memory it runs may change: that is what one turns after an out-of-memory error.

The three lists cover every key of the composed configuration, each key once. A pattern covers a key and all keys below
it; `*` is any text. A key that no list covers, such as one that a user has added, is taken for part of the method.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.compose import as_override


def _below(prefixes: str, names: str) -> tuple[str, ...]:
    """Join every prefix with every name; both are separated by spaces."""
    return tuple(f"{prefix}.{name}" for prefix in prefixes.split() for name in names.split())


# What two methods differ in: data, model, sampling, reward, algorithm, optimiser, precision, and how it is validated.
METHOD = (
    # The class that veRL makes of a section.
    "*._target_",
    *_below(
        "data",
        """audio_key bad_rows custom_cls filter_overlong_prompts function_tool_path gen_batch_size generated_share
        image_key image_patch_size instruction max_pixels max_prompt_length max_response_length min_pixels prompt_key
        return_full_prompt return_multi_modal_inputs return_raw_chat return_raw_input_ids reward_fn_key seed shuffle
        supervised tokenizer tool_config_path train_batch_size train_files train_max_samples truncation
        trust_remote_code val_files val_max_samples validation_max_pixels validation_min_pixels validation_shuffle
        video_key""",
    ),
    *_below(
        "actor_rollout_ref.model critic.model",
        """custom_chat_template exclude_modules external_lib hf_config_path lora lora_adapter_path lora_alpha lora_rank
        mtp path target_modules tokenizer_path trust_remote_code""",
    ),
    *_below(
        "actor_rollout_ref.actor critic",
        """calculate_sum_pi_squared clip_ratio clip_ratio_c clip_ratio_high clip_ratio_low cliprange_value
        data_loader_seed enable entropy_coeff freeze_vision_tower grad_clip kl_loss_coef kl_loss_type loss_agg_mode
        loss_scale_factor optim policy_loss ppo_epochs ppo_mini_batch_size qat rollout_n shuffle tau_neg tau_pos
        use_kl_loss""",
    ),
    "actor_rollout_ref.ref.rollout_n",
    *_below(
        "actor_rollout_ref.*.fsdp_config critic.fsdp",
        "dtype forward_only mixed_precision model_dtype qat seed turbo_config",
    ),
    "actor_rollout_ref.hybrid_engine",
    *_below(
        "actor_rollout_ref.rollout reward.reward_model.rollout reward_model.rollout distillation.teacher_models.*",
        """do_sample dtype ignore_eos limit_images max_model_len mtp n name prompt_length quantization
        quantization_config_file response_length seed temperature top_k top_p""",
    ),
    *_below(
        "actor_rollout_ref.rollout",
        """agent.agent_loop_config_path agent.agent_loop_manager_class agent.custom_async_server
        agent.default_agent_loop calculate_log_probs enable_rollout_routing_replay logprobs_mode mode multi_turn
        over_sample_rate qat val_kwargs""",
    ),
    # Arguments of vLLM that change what is sampled; the others change speed and memory.
    *_below(
        "actor_rollout_ref.rollout.engine_kwargs.vllm",
        """dtype generation_config hf_overrides kv_cache_dtype limit_mm_per_prompt logits_processors logprobs_mode
        max_model_len mm_processor_kwargs override_generation_config quantization seed""",
    ),
    "algorithm",
    "custom_reward_function",
    *_below("distillation", "distillation_loss enabled teacher_key teacher_models.*.key teacher_models.*.model_path"),
    *_below(
        "mmupt.baseline",
        """bad_prompt_share dpo.batch_size dpo.beta dpo.epochs dpo.learning_rate judge_scale method min_yes prompts rows
        sft.batch_size sft.epochs sft.learning_rate sft.steps sft.warmup_share synthesis verdict_samples""",
    ),
    *_below("mmupt", "dataset datasets seed self_improve test_time_training"),
    *_below("reward", "custom_reward_function reward_kwargs reward_manager sandbox_fusion.url"),
    *_below("reward.reward_model", "enable enable_resource_pool model_path"),
    *_below(
        "reward_model",
        """enable enable_resource_pool model reward_loop_class_name reward_loop_module_path reward_loop_source
        reward_manager""",
    ),
    "sandbox_fusion.url",
    "skip",
    *_below("trainer", "critic_warmup use_v1"),
    *_below(
        "trainer.v1",
        """colocate_async sampler.custom_sampler sampler.max_off_policy_strategy sampler.max_off_policy_threshold
        sampler.sync_refill_failed_groups separate_async.num_warmup_batches separate_async.parameter_sync_step
        trainer_mode""",
    ),
    *_below(
        "trainer.v1.sampler.sampler_kwargs",
        """filter_groups gen_batch_size n reward_kwargs reward_manager sync_refill_failed_groups train_batch_size
        train_files""",
    ),
)

# Where the checkpoints and the history are and what is in them; with another value they would not be found or read.
CHECKPOINTS = (
    *_below("actor_rollout_ref.actor actor_rollout_ref.ref critic", "checkpoint strategy"),
    *_below("actor_rollout_ref.*.fsdp_config critic.fsdp", "fsdp_size strategy use_orig_params"),
    # The place in the data that a checkpoint holds is one of so many workers (torchdata's StatefulDataLoader).
    "data.dataloader_num_workers",
    "model_engine",
    *_below(
        "trainer",
        """checkpoint_callback_class default_hdfs_dir default_local_dir del_local_ckpt_after_load resume_from_path
        resume_mode""",
    ),
    *_below("trainer.v1.sampler.sampler_kwargs", "checkpoints history"),
)

# Of an asynchronous run, whose checkpoints hold the transfer queue.
QUEUE = ("transfer_queue.backend",)

# How long a run goes on, what it shows, and on what, how fast and in how much memory it runs.
MAY_CHANGE = (
    "*.profiler",
    "global_profiler",
    *_below("data", "cache_dir dropped_rows filter_overlong_prompts_workers use_shm val_batch_size"),
    *_below(
        "actor_rollout_ref.model critic.model",
        """enable_activation_offload enable_gradient_checkpointing fused_kernel_options
        override_config.attn_implementation tiled_mlp use_fused_kernels use_liger use_remove_padding use_shm""",
    ),
    *_below(
        "actor_rollout_ref.actor actor_rollout_ref.ref critic",
        """calculate_entropy entropy_checkpointing entropy_from_logits_chunk_size entropy_from_logits_with_chunking
        forward_max_token_len_per_gpu forward_micro_batch_size forward_micro_batch_size_per_gpu
        log_prob_max_token_len_per_gpu log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu
        log_prob_use_dynamic_bsz pad_to_length ppo_infer_max_token_len_per_gpu ppo_max_token_len_per_gpu
        ppo_micro_batch_size ppo_micro_batch_size_per_gpu ulysses_sequence_parallel_size use_dynamic_bsz
        use_fused_kernels use_prefix_grouper use_remove_padding use_torch_compile""",
    ),
    *_below(
        "actor_rollout_ref.*.fsdp_config critic.fsdp",
        """entropy_checkpointing entropy_from_logits_chunk_size entropy_from_logits_with_chunking forward_prefetch
        full_determinism offload_policy optimizer_offload pad_to_length pad_to_length_bucket param_offload
        reshard_after_forward ulysses_sequence_parallel_size use_no_sync_for_gradient_accumulation use_torch_compile
        wrap_policy""",
    ),
    "actor_rollout_ref.nccl_timeout",
    *_below(
        "actor_rollout_ref.rollout reward.reward_model.rollout reward_model.rollout distillation.teacher_models.*",
        """cudagraph_capture_sizes data_parallel_size disable_log_stats disaggregation enable_chunked_prefill
        enable_prefix_caching enforce_eager engine_kwargs expert_parallel_size free_cache_engine full_determinism
        gpu_memory_utilization layered_summon load_format max_num_batched_tokens max_num_seqs multi_stage_wake_up
        pipeline_model_parallel_size scheduling_policy skip_tokenizer_init tensor_model_parallel_size""",
    ),
    *_below(
        "actor_rollout_ref.rollout",
        """agent.num_workers checkpoint_engine enable_sleep_mode log_prob_max_token_len_per_gpu
        log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu log_prob_use_dynamic_bsz
        moe_load_balance_metrics_interval n_gpus_per_node nnodes prometheus router_config_path trace""",
    ),
    *_below("distillation", "n_gpus_per_node nnodes teacher_models.*.num_replicas"),
    *_below("mmupt.baseline", "dpo.micro_batch_size dpo.save_steps sft.micro_batch_tokens sft.save_steps"),
    *_below(
        "mmupt",
        """evaluation_files evaluation_forbidden_openings evaluation_samples fork_workers gpu_memory_gib leakage name
        paper_method report_note run_folder stop_on_collapse votes_per_step""",
    ),
    "ray_kwargs",
    *_below("reward", "num_workers reward_model.n_gpus_per_node reward_model.nnodes"),
    "reward.reward_model.rollout.enable_sleep_mode",
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
        "trainer.v1.sampler.sampler_kwargs", "poll_interval stop_on_collapse votes votes_per_step watchdog_seconds"
    ),
    "transfer_queue",
)


def is_covered(key: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted key, or one above it, is among the patterns."""
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
    """Say which settings of a run would have to keep their values for it to be continued; None where all do.

    A value that is taken from another key is not named beside it.
    """
    old, new = (flatten(OmegaConf.to_container(config, resolve=True)) for config in (before, now))
    kept = METHOD + CHECKPOINTS + (() if before.trainer.v1.trainer_mode.startswith("sync") else QUEUE)
    references = set(_references(before)) & set(_references(now))
    changed = [
        key
        for key in sorted(old | new)
        if old.get(key) != new.get(key)
        and not is_covered(key, (name for name, _ in references))
        and (is_covered(key, kept) or not is_covered(key, MAY_CHANGE))
    ]
    if not changed:
        return None
    lines = (f"\n  {key}: {old.get(key, 'not set')} there, {new.get(key, 'not set')} here" for key in changed)
    fixes = [as_override(key, old[key]) for key in changed if key in old]
    fixes += [f"no {key}" for key in changed if key not in old]
    return f"{''.join(lines)}\nTo continue it, give {' '.join(fixes)}"


def _references(config: DictConfig) -> Iterator[tuple[str, str]]:
    """The keys of a configuration whose values are taken from other keys, with where from."""
    for key, value in flatten(OmegaConf.to_container(config, resolve=False)).items():
        if isinstance(value, str) and "${" in value:
            yield key, value
