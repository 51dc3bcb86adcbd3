"""Settings of speed and memory may change when a run is continued, and settings of the method may not."""

import pytest
from composed_recipes import HARDWARE, shipped
from omegaconf import DictConfig, OmegaConf

from mmupt.training.memory_estimate import ADVICE
from mmupt.training.resume_rules import KEPT, MAY_CHANGE, _below, flatten, is_covered, why_another_run

# Keys of the method and of the checkpoints, with exceptions in MAY_CHANGE. Sections with many settings of speed and
# memory are listed key by key, so that somebody has to decide on a key that veRL adds to them.
METHOD = (
    *("algorithm", "critic", "custom_reward_function", "data", "distillation"),
    *("model_engine", "reward", "reward_model", "sandbox_fusion", "skip"),
    *_below(
        "actor_rollout_ref.actor",
        """calculate_sum_pi_squared checkpoint clip_ratio* data_loader_seed entropy_coeff freeze_vision_tower grad_clip
        kl_loss_* loss_agg_mode loss_scale_factor optim policy_loss ppo_epochs ppo_mini_batch_size qat shuffle tau_*
        use_kl_loss""",
    ),
    *_below("actor_rollout_ref.actor actor_rollout_ref.ref", "rollout_n strategy"),
    *_below(
        "actor_rollout_ref.*.fsdp_config",
        "dtype forward_only fsdp_size mixed_precision model_dtype qat seed strategy turbo_config use_orig_params",
    ),
    *_below(
        "actor_rollout_ref.model",
        """custom_chat_template exclude_modules external_lib hf_config_path lora* mtp path target_modules tokenizer_path
        trust_remote_code""",
    ),
    *_below(
        "actor_rollout_ref.rollout",
        """agent.agent_loop_* agent.custom_async_server agent.default_agent_loop calculate_log_probs do_sample dtype
        enable_rollout_routing_replay ignore_eos logprobs_mode max_model_len mode mtp multi_turn n name
        over_sample_rate prompt_length qat quantization* response_length seed temperature top_k top_p val_kwargs""",
    ),
    "actor_rollout_ref.hybrid_engine",
    *_below("mmupt", "baseline dataset datasets seed self_improve test_time_training"),
    *_below(
        "trainer",
        """checkpoint_callback_class critic_warmup default_hdfs_dir default_local_dir del_local_ckpt_after_load resume_*
        use_v1 v1""",
    ),
)
RECIPES = [
    ("mmupt_tiny_self_improve", "method=stic"),
    ("mmupt_tiny", "+async=separate_cpu"),
    *(("mmupt_mathvista", f"+async={option}") for option in ("colocate", "separate")),
    *(("mmupt_mathvista", f"hardware={option}") for option in HARDWARE),
]


def composed(*overrides: str) -> DictConfig:
    return shipped("mmupt_mathvista", *overrides)


def with_values(*values: str) -> DictConfig:
    """The recipe with other values; only another hardware option composes it again."""
    options = [value for value in values if value.startswith("hardware=")]
    config = OmegaConf.create(OmegaConf.to_container(composed(*options), resolve=False))
    config.merge_with_dotlist([value for value in values if value not in options])
    return config


def test_every_key_is_of_the_method_or_may_change_and_no_pattern_is_stale() -> None:
    keys = {key for recipe in RECIPES for key in flatten(OmegaConf.to_container(shipped(*recipe), resolve=True))}
    assert len(keys) > 900
    fixed = {key for key in keys if not is_covered(key, MAY_CHANGE)}
    undecided = sorted(key for key in fixed if not is_covered(key, METHOD + KEPT))
    assert not undecided, "decide: add it to MAY_CHANGE (recipes/mmupt/training/resume_rules.py) or to METHOD above"
    assert not [pattern for pattern in MAY_CHANGE if not any(is_covered(key, [pattern]) for key in keys)]
    assert not [pattern for pattern in METHOD if not any(is_covered(key, [pattern]) for key in fixed)]


def test_a_key_that_must_not_change_refers_to_no_key_that_may_change() -> None:
    config = composed()
    for key, value in flatten(OmegaConf.to_container(config, resolve=False)).items():
        if isinstance(value, str) and value.startswith("${") and value.endswith("}") and value.count("${") == 1:
            source = value[2:-1].removeprefix("oc.select:").split(",")[0]
            if not is_covered(key, MAY_CHANGE) and not key.startswith(("critic", "reward_model", "distillation")):
                assert not is_covered(source, MAY_CHANGE), f"{key} of the method follows {source}, which may change"


ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{ROLLOUT}.gpu_memory_utilization=0.3"],
        [f"{ROLLOUT}.tensor_model_parallel_size=4"],
        [f"{ROLLOUT}.max_num_batched_tokens=4096", f"{ROLLOUT}.max_num_seqs=16"],
        [f"{ROLLOUT}.enforce_eager=True", f"{ROLLOUT}.free_cache_engine=False", f"{ROLLOUT}.agent.num_workers=2"],
        [f"{ROLLOUT}.log_prob_max_token_len_per_gpu=4096", "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=4096"],
        [f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=256"],
        [f"{ROLLOUT}.engine_kwargs.vllm.swap_space=8"],
        [f"{ACTOR}.ppo_max_token_len_per_gpu=4096"],
        [f"{ACTOR}.use_dynamic_bsz=False", f"{ACTOR}.ppo_micro_batch_size_per_gpu=1"],
        [f"{ACTOR}.fsdp_config.param_offload=True", f"{ACTOR}.fsdp_config.optimizer_offload=True"],
        [f"{ACTOR}.fsdp_config.offload_policy=True", f"{ACTOR}.ulysses_sequence_parallel_size=2"],
        [f"{ACTOR}.entropy_checkpointing=True", f"{ACTOR}.entropy_from_logits_with_chunking=True"],
        ["actor_rollout_ref.model.enable_gradient_checkpointing=False"],
        ["actor_rollout_ref.model.enable_activation_offload=True", "actor_rollout_ref.model.use_fused_kernels=True"],
        [
            "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
            "actor_rollout_ref.model.use_remove_padding=False",
        ],
        ["reward.num_workers=2", "transfer_queue.backend.SimpleStorage.num_data_storage_units=2"],
        ["trainer.nnodes=2", "trainer.n_gpus_per_node=4", "trainer.total_training_steps=7"],
        ["mmupt.run_folder=elsewhere"],
        ["hardware=gpu_4x80gb"],
        ["hardware=gpu_1x80gb"],
        ["hardware=gpu_nodes_8x80gb"],
    ],
    ids=lambda overrides: overrides[0].rpartition(".")[2],
)
def test_settings_of_speed_and_memory_may_change(overrides: list[str]) -> None:
    assert why_another_run(composed(), with_values(*overrides)) is None


def test_every_key_in_the_advice_of_the_memory_estimate_may_change() -> None:
    config = flatten(OmegaConf.to_container(composed(), resolve=True))
    advised = {key for text in ADVICE.values() for key in config if key in text.replace("=", " ").split()}
    assert len(advised) >= 3
    assert all(is_covered(key, MAY_CHANGE) for key in advised)


@pytest.mark.parametrize(
    ("override", "before"),
    [
        ("mmupt.seed=7", "1"),
        ("data.train_batch_size=256", "512"),
        ("data.max_pixels=500000", "1204224"),
        ("data.max_response_length=1024", "2048"),
        ("data.dataloader_num_workers=2", "8"),
        ("actor_rollout_ref.model.lora_rank=32", "0"),
        (f"{ACTOR}.optim.lr=1e-05", "1e-06"),
        (f"{ACTOR}.kl_loss_coef=0.1", "0.01"),
        (f"{ACTOR}.fsdp_config.model_dtype=bf16", "fp32"),
        (f"{ACTOR}.strategy=fsdp", "fsdp2"),
        (f"{ROLLOUT}.n=8", "10"),
        (f"{ROLLOUT}.temperature=1.0", "0.7"),
        ("algorithm.norm_adv_by_std_in_grpo=False", "True"),
        ("reward.reward_manager.name=random", "majority_vote"),
        ("reward.reward_kwargs.vote.tie=all", "none"),
        ("reward.reward_kwargs.answers.rule=mathruler", "canonical"),
    ],
)
def test_a_changed_setting_of_the_method_is_named_with_both_values_and_the_override_that_restores_it(
    override: str, before: str
) -> None:
    reason = why_another_run(composed(), with_values(override))
    key, _, now = override.partition("=")
    assert reason is not None
    first, *others, last = reason.strip().splitlines()
    assert not others and first == f"{key}: {before} there, {now} here"
    assert last.removeprefix("To continue it, give ").replace("'", "") == f"{key}={before}"


def test_a_hardware_option_that_changes_the_method_is_refused_with_the_keys_it_changes() -> None:
    reason = why_another_run(composed("model=qwen2_5_vl_3b"), composed("hardware=gpu_1x24gb"))
    assert reason is not None
    for key in ("actor_rollout_ref.model.lora_rank", f"{ACTOR}.optim.lr", f"{ACTOR}.fsdp_config.model_dtype"):
        assert f"  {key}: " in reason
    assert "gpu_memory_utilization" not in reason and "ppo_max_token_len_per_gpu" not in reason


def test_an_unlisted_key_counts_as_part_of_the_method() -> None:
    added = "actor_rollout_ref.model.override_config.tie_word_embeddings=True"
    reason = why_another_run(composed(), with_values(added))
    assert reason is not None and "no actor_rollout_ref.model.override_config.tie_word_embeddings" in reason
    cache_type = f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=fp8"
    assert "kv_cache_dtype: not set there, fp8 here" in str(why_another_run(composed(), with_values(cache_type)))


@pytest.mark.parametrize("run", ["run", "writer"])
def test_a_run_of_a_round_continues_after_the_folder_of_all_rounds_was_moved(run: str) -> None:
    def of_round(folder: str, *values: str) -> DictConfig:
        return with_values(
            f"mmupt.run_folder={folder}/round_2/{run}",
            f"actor_rollout_ref.model.path={folder}/round_1/run/model",
            f"data.train_files=[{folder}/round_2/synthesis/train.parquet,/data/train.parquet]",
            *values,
        )

    before = of_round("/old/rounds")
    assert why_another_run(before, of_round("/new/place")) is None
    for path in ("/new/place/round_2/run/model", "/new/round_1/run/model", "round_1/run/model"):
        reason = why_another_run(before, of_round("/new/place", f"actor_rollout_ref.model.path={path}"))
        assert f"model.path: /old/rounds/round_1/run/model there, {path} here" in str(reason)
    other = "[/new/place/round_2/synthesis/train.parquet,/new/data/train.parquet]"
    assert "data.train_files: " in str(why_another_run(before, of_round("/new/place", f"data.train_files={other}")))


def test_a_moved_run_continues_only_with_the_data_outside_its_folder_that_it_had() -> None:
    before = with_values("mmupt.run_folder=/old/runs/vote", "data.train_files=[/old/data/train.parquet]")
    now = with_values("mmupt.run_folder=/new/runs/vote", "data.train_files=[/new/data/train.parquet]")
    assert "data.train_files: " in str(why_another_run(before, now))


def test_an_asynchronous_run_may_change_its_gpus_but_not_its_mode_or_queue() -> None:
    def reason(*values: str) -> str | None:
        now = OmegaConf.create(OmegaConf.to_container(composed("+async=separate"), resolve=False))
        now.merge_with_dotlist(list(values))
        return why_another_run(composed("+async=separate"), now)

    assert reason(f"{ROLLOUT}.n_gpus_per_node=2", f"{ROLLOUT}.nnodes=2", "trainer.n_gpus_per_node=2") is None
    units = "transfer_queue.backend.SimpleStorage.num_data_storage_units"
    assert f"{units}: 8 there, 3 here" in str(reason(f"{units}=3"))
    assert "trainer.v1.trainer_mode: sync there" in str(why_another_run(composed(), composed("+async=colocate")))
