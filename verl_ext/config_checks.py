"""Checks a config before anything expensive starts. Imports no veRL."""

import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.collapse import read_rule
from verl_ext.config_defaults import (
    DATA_DEFAULTS,
    DATASET,
    SAMPLER,
    SAMPLER_DEFAULTS,
    SAMPLER_KEY,
    SHARED_PROMPT_AGENT,
    uses,
)
from verl_ext.datasets.ground_truth import check_held_out
from verl_ext.files import file_list
from verl_ext.import_check import (
    ADVANTAGE_ESTIMATOR,
    AGENT_LOOP_KEY,
    CALLBACK_KEY,
    DEFAULT_AGENT_LOOP,
    POLICY_LOSS,
    REWARD_FUNCTION,
    REWARD_MANAGER_KEY,
    REWARD_MANAGERS,
    TRAINER_MODE,
    problems_of_code,
    verl_folder,
)
from verl_ext.rewards.confidence import FROM_LOGITS, SelfCertaintyReward
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.row_grading import problems_of_local_files, problems_of_rows, validates_first
from verl_ext.trackers.group_tables import problem_of as problem_of_tracked
from verl_ext.unknown_keys import is_number, is_whole, nearest, refuse_unknown_keys
from verl_ext.votes import VoteOptions

select = OmegaConf.select

AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
# Read by veRL's datasets (verl/utils/dataset/rl_dataset.py), although its YAML does not list them.
UNLISTED_DATA_KEYS = ("cache_dir", "chat_template_func", "filter_prompts", "need_tools_kwargs")
# data.image_patch_size in veRL's YAML, whatever the model.
DEFAULT_PATCH_SIZE = 14
# Declared by `recipes/mmupt/config/base.yaml`, which veRL's own command line composes as well.
LAUNCHER_DATA_KEYS = ("bad_rows",)
LOG_PROBS_KEY = "actor_rollout_ref.rollout.calculate_log_probs"
BYPASS_KEY = "algorithm.rollout_correction.bypass_mode"
FUSED_KEY = "actor_rollout_ref.model.use_fused_kernels"
STRATEGY_KEY = "actor_rollout_ref.actor.strategy"
# Estimators that need inputs which veRL's v1 trainer does not pass (PPOTrainer._compute_advantage); they fail after the
# first rollout.
ESTIMATORS_FAILING_IN_V1 = ("gdpo", "optimal_token_baseline", "remax", "tir_optimal_token_baseline")
# Keys by which configs for older versions change rewards, with the values that change nothing. veRL's YAML still lists
# the blocks, but `main_ppo` reads none of them (verl/trainer/config/legacy_reward_impl.yaml).
LEGACY_REWARDS = {
    "reward_model.reward_manager": (None, "naive"),
    "reward_model.enable": (None, False),
    "reward_model.reward_kwargs.overlong_buffer_cfg.enable": (None, False),
    "reward_model.overlong_buffer.enable": (None, False),
}
# The trainer mode of `verl_ext.confidence_trainer`, which is not imported here because it imports veRL.
CONFIDENCE_MODE = "sync_confidence"
CHECKPOINT_CALLBACK = "verl_ext.checkpoints.callback.CheckpointMarker"


def check_config(config: DictConfig) -> None:
    """Refuse a config under which the vote, or another part of this plugin, would be wrong or unused.

    A config that selects no part of this plugin passes.

    Raises:
        ValueError: names the key and the fix of every problem.
    """
    _refuse([*problems_of_config(config)])


def check_before_ray(config: DictConfig) -> None:
    """Refuse what `check_config` refuses, unusable local data files, and code that cannot be loaded.

    Code is checked even if the config selects no part of this plugin.

    Raises:
        ValueError: names the key and the fix of every problem.
    """
    _refuse([*problems_of_config(config), *problems_of_local_files(config), *problems_of_code(config)])


def check_rows(config: DictConfig, datasets: Mapping[str, Any]) -> None:
    """Refuse bad ground truths that `check_before_ray` could not read: of remote files and custom datasets.

    Args:
        datasets: veRL's dataset for each key of files, such as `data.val_files`.

    Raises:
        ValueError: names the key, the first row and the fix.
    """
    _refuse([*problems_of_rows(config, datasets)])


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(problems[0] if len(problems) == 1 else f"{len(problems)} settings must change:{listed}")


def problems_of_config(config: DictConfig) -> Iterator[str]:
    """Yield the problems that `check_config` refuses."""
    yield from _extension_problems(config)
    yield from _data_problems(config)
    name = select(config, REWARD_MANAGER_KEY)
    if name in REWARDS:
        yield from _reward_problems(config, name)


def _extension_problems(config: DictConfig) -> Iterator[str]:
    """Yield problems of the parts of the plugin that work with any reward manager."""
    legacy = select(config, "reward_model.reward_manager")
    if legacy in REWARDS:
        yield f"veRL does not read reward_model.reward_manager={legacy}: set {REWARD_MANAGER_KEY}={legacy}"
    if is_selected(config):
        yield from _legacy_problems(config)
    agent, manager = DEFAULT_AGENT_LOOP, select(config, AGENT_LOOP_KEY)
    if select(config, agent) == SHARED_PROMPT_AGENT and manager != AGENT_LOOP_MANAGER:
        yield f"{agent}={SHARED_PROMPT_AGENT} exists only under {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}: set both"
    for key, extension in (("data.custom_cls", DATASET), ("trainer.v1.sampler.custom_sampler", SAMPLER)):
        if select(config, f"{key}.path") == extension[0] and not uses(config, key, extension):
            yield f"{key}.path={extension[0]} needs {key}.name={extension[1]}"
    if uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER):
        yield from _sampler_problems(config)
    elif (
        manager == AGENT_LOOP_MANAGER
        and select(config, agent) != SHARED_PROMPT_AGENT
        and (reward := select(config, REWARD_MANAGER_KEY)) in REWARD_MANAGERS
    ):
        yield (
            f"{AGENT_LOOP_KEY}={manager} does nothing under {REWARD_MANAGER_KEY}={reward}: set "
            f"{REWARD_MANAGER_KEY}=majority_vote, or remove it"
        )
    asynchronous = "actor_rollout_ref.actor.checkpoint.async_save"
    callback = select(config, CALLBACK_KEY)
    if callback == CHECKPOINT_CALLBACK and select(config, asynchronous):
        yield f"{CALLBACK_KEY}={callback} needs {asynchronous}=False"
    yield from _confidence_problems(config)
    # The launcher's baselines other than GRPO train with another loss.
    if select(config, POLICY_LOSS) == "on_policy" and select(config, "mmupt.baseline.method") is None:
        yield from _on_policy_problems(config)


def _legacy_problems(config: DictConfig) -> Iterator[str]:
    """Yield keys that changed rewards in older versions and that veRL silently ignores."""
    if (function := select(config, "custom_reward_function.path")) is not None:
        use = ", which grades validation alone" if select(config, REWARD_MANAGER_KEY) in REWARDS else ""
        yield (
            f"veRL does not read custom_reward_function.path={function}: rename custom_reward_function to "
            f"{REWARD_FUNCTION}{use}"
        )
    found = {key: select(config, key) for key in LEGACY_REWARDS}
    unread = [f"{key}={value}" for key, value in found.items() if value not in (*LEGACY_REWARDS[key], *REWARDS)]
    if unread:
        yield f"veRL does not read {', '.join(unread)}: remove {'it' if len(unread) == 1 else 'them'}"


def _confidence_problems(config: DictConfig) -> Iterator[str]:
    """Yield problems of rewards that are computed from logits, and of the trainer mode that computes them."""
    name, mode = select(config, REWARD_MANAGER_KEY), f"{TRAINER_MODE}={CONFIDENCE_MODE}"
    if select(config, TRAINER_MODE) != CONFIDENCE_MODE:
        if name in FROM_LOGITS:
            yield f"{REWARD_MANAGER_KEY}={name} needs logits: set {mode}"
        return
    if name not in FROM_LOGITS:
        wanted = f"{REWARD_MANAGER_KEY} to {' or '.join(FROM_LOGITS)}"
        yield f"{mode} replaces the rewards of {name}: set {wanted}, or {TRAINER_MODE}=sync"
    if select(config, BYPASS_KEY):
        yield f"{mode} needs the pass for old log-probabilities: set {BYPASS_KEY}=False and {POLICY_LOSS}=vanilla"
    if name != SelfCertaintyReward.name:
        return
    if select(config, FUSED_KEY):
        yield f"{REWARD_MANAGER_KEY}={name} needs logits, which fused kernels do not keep: set {FUSED_KEY}=False"
    if (strategy := select(config, STRATEGY_KEY)) not in ("fsdp", "fsdp2"):
        yield f"{REWARD_MANAGER_KEY}={name} is computed by veRL's FSDP engine: set {STRATEGY_KEY}=fsdp2, not {strategy}"


def _on_policy_problems(config: DictConfig) -> Iterator[str]:
    """Yield settings that let the policy change within a batch or make veRL compute old log-probabilities."""
    otherwise = f"or set {POLICY_LOSS}=vanilla and {BYPASS_KEY}=False"
    batch, mode = select(config, "data.train_batch_size"), select(config, TRAINER_MODE)
    actor = config.actor_rollout_ref.actor
    if actor.ppo_mini_batch_size < batch or actor.ppo_epochs > 1:
        yield (
            f"{POLICY_LOSS}=on_policy is for one update per batch: set actor_rollout_ref.actor.ppo_epochs=1 and "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={batch}, {otherwise}"
        )
    if mode != "sync":
        yield f"{POLICY_LOSS}=on_policy is for synchronous training: set {TRAINER_MODE}=sync, {otherwise}"
    if not select(config, BYPASS_KEY):
        yield f"{POLICY_LOSS}=on_policy uses no old log-probabilities: set {BYPASS_KEY}=True, {otherwise}"
    if not select(config, LOG_PROBS_KEY):
        yield f"{BYPASS_KEY}=True needs {LOG_PROBS_KEY}=True, {otherwise}"


def is_selected(config: DictConfig) -> bool:
    """Whether a config selects any part of this plugin."""
    return (
        select(config, REWARD_MANAGER_KEY) in REWARDS
        or select(config, AGENT_LOOP_KEY) == AGENT_LOOP_MANAGER
        or uses(config, "data.custom_cls", DATASET)
        or uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER)
    )


def _data_problems(config: DictConfig) -> Iterator[str]:
    """Yield keys of `data` that the configured dataset does not read, and files in both training and validation."""
    if not is_selected(config):
        return
    block = select(config, "data") or {}
    if uses(config, "data.custom_cls", DATASET):
        if (size := block.get("image_patch_size")) not in (None, DEFAULT_PATCH_SIZE):
            yield f"data.image_patch_size={size} is not read, as the patch size is the processor's own: remove it"
        known = {*_data_keys_of_verl(), *DATA_DEFAULTS, *LAUNCHER_DATA_KEYS}
        for key in block:
            if key not in known:
                yield f"there is no key data.{key}{nearest(str(key), known)}"
        try:
            check_held_out(file_list(block.get("train_files")), file_list(block.get("val_files")))
        except ValueError as error:
            yield str(error)
    elif select(config, "data.custom_cls.path") is None:
        path, name = DATASET
        # Reward managers need `supervised` with any dataset.
        own = DATA_DEFAULTS.keys() - _data_keys_of_verl() - {"supervised"}
        for key in block.keys() - _data_keys_of_verl():
            if block[key] is not None and (meant := difflib.get_close_matches(str(key), own, n=1, cutoff=0.8)):
                yield (
                    f"data.{key} is not read by veRL's dataset: set data.custom_cls.path={path} and "
                    f"data.custom_cls.name={name}, whose key is data.{meant[0]}, or remove it"
                )


@functools.cache
def _data_keys_of_verl() -> frozenset[str]:
    if (folder := verl_folder()) is None:
        raise ModuleNotFoundError("veRL is not installed: run `make setup`")
    listed = OmegaConf.load(folder / "trainer" / "config" / "data" / "legacy_data.yaml")
    return frozenset((*map(str, listed), *UNLISTED_DATA_KEYS))


def _sampler_problems(config: DictConfig) -> Iterator[str]:
    def block_of(key: str) -> str:
        # Recipes declare the key under `mmupt`.
        return "mmupt" if select(config, f"mmupt.{key}") is not None else SAMPLER_KEY

    given = select(config, SAMPLER_KEY) or {}
    try:
        refuse_unknown_keys(given, SAMPLER_DEFAULTS)
    except ValueError as error:
        yield f"{SAMPLER_KEY}: {error}"
    if "stop_on_collapse" in given:
        try:
            read_rule(given["stop_on_collapse"])
        except ValueError as error:
            yield f"{block_of('stop_on_collapse')}.{error}"
    if "tracked_groups" in given and (problem := problem_of_tracked(given["tracked_groups"])):
        yield f"{block_of('tracked_groups')}.{problem}"
    numbers = {
        "votes_per_step": (lambda value: value is None or is_whole(value, 0), "null or a whole number of at least 0"),
        "watchdog_seconds": (lambda value: is_number(value, 1), "a number of at least 1"),
        "poll_interval": (lambda value: is_number(value, 0), "a number of at least 0"),
    }
    for name, (is_allowed, values) in numbers.items():
        if name in given and not is_allowed(given[name]):
            yield f"{block_of(name)}.{name} must be {values}, not {given[name]!r}"


def _reward_problems(config: DictConfig, name: str) -> Iterator[str]:
    """Yield problems of the reward of this name and of its requirements."""
    reward = REWARDS[name]
    if (supervised := bool(select(config, "data.supervised"))) != reward.needs_ground_truth:
        yield (
            f"data.supervised={supervised} does not go with {REWARD_MANAGER_KEY}={name}, which needs "
            f"data.supervised={reward.needs_ground_truth}"
        )
    if select(config, AGENT_LOOP_KEY) != AGENT_LOOP_MANAGER:
        yield f"{REWARD_MANAGER_KEY}={name} needs whole groups: set {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
    source = "reward.reward_manager.source"
    if (given := select(config, source)) not in ("register", None):
        yield f"{REWARD_MANAGER_KEY}={name} is registered, not in a file: set {source}=register, not {given}"
    # Blocks of the configs of `verl.experimental.one_step_off_policy` and `fully_async_policy`.
    if "async_training" in config or select(config, "rollout.nnodes") is not None:
        yield (
            f"{REWARD_MANAGER_KEY}={name} needs the rollout of veRL's v1 trainer: run verl.trainer.main_ppo with "
            f"{TRAINER_MODE}=separate_async, without the blocks async_training and rollout"
        )
    elif not select(config, "trainer.use_v1"):
        yield f"{REWARD_MANAGER_KEY}={name} needs veRL's v1 trainer: set trainer.use_v1=True"
    if (estimator := select(config, ADVANTAGE_ESTIMATOR)) in ESTIMATORS_FAILING_IN_V1:
        yield f"veRL's v1 trainer cannot compute {ADVANTAGE_ESTIMATOR}={estimator}: set {ADVANTAGE_ESTIMATOR}=grpo"
    task_rewards = "distillation.distillation_loss.use_task_rewards"
    if select(config, "distillation.enabled") and not select(config, task_rewards):
        yield f"{task_rewards}=False trains on no reward: set {task_rewards}=True, or distillation.enabled=False"
    n = select(config, "actor_rollout_ref.rollout.n") or 1
    # Validation takes no votes, but `val_only` ends a run only after an initial validation.
    if n < 2 and not (select(config, "trainer.val_only") and validates_first(config)):
        yield f"a vote takes at least two responses per prompt: set actor_rollout_ref.rollout.n >= 2, not {n}"
    try:
        options = read_settings(select(config, "reward.reward_kwargs")).vote_options
    except ValueError as error:
        yield str(error)
    else:
        yield from _vote_problems(options, n) if n >= 2 else ()
    if reward.needs_log_probs and not select(config, LOG_PROBS_KEY):
        yield f"{REWARD_MANAGER_KEY}={name} needs the log-probabilities of tokens: set {LOG_PROBS_KEY}=True"
    deterministic = "actor_rollout_ref.rollout.full_determinism"
    # Deterministic engines refuse to serve an id twice, and solutions have no ids of their own.
    if reward.needs_questions and select(config, deterministic):
        yield f"{REWARD_MANAGER_KEY}={name} cannot repeat its solutions: set {deterministic}=False"
    filters = select(config, "algorithm.filter_groups")
    # All other scores are constant within a group, so every group would be dropped.
    if filters and filters.enable and filters.metric != "reward":
        yield f"set algorithm.filter_groups.metric=reward, not {filters.metric}: nothing else tells responses apart"
    # Any manager may have scored them.
    if select(config, saved := "skip.rollout_tq.enable"):
        yield f"{saved}=True trains on saved responses with their saved rewards: set {saved}=False"
    yield from _mode_problems(config)
    yield from _judge_problems(config, name)


def _judge_problems(config: DictConfig, name: str) -> Iterator[str]:
    """Yield problems of veRL's reward model, which serves as the judge of a reward that needs judgements."""
    key = "reward.reward_model"
    if not REWARDS[name].needs_judgements:
        if select(config, f"{key}.enable"):
            yield f"{name} uses no reward model: set {key}.enable=False"
        return
    wanted = {"enable": True, "enable_resource_pool": True}
    if wrong := [f"{key}.{one}={value}" for one, value in wanted.items() if select(config, f"{key}.{one}") != value]:
        yield f"{REWARD_MANAGER_KEY}={name} needs a judge on separate GPUs: set {' '.join(wrong)}"
    if select(config, f"{key}.model_path") is None:
        yield f"{REWARD_MANAGER_KEY}={name} needs a judge: set {key}.model_path, for example to the policy's model"
    # Without this function, veRL treats every reward model as a classifier (RewardLoopWorker.compute_score).
    if select(config, f"{REWARD_FUNCTION}.path") is None:
        yield f"{REWARD_MANAGER_KEY}={name} needs a function that grades validation: set {REWARD_FUNCTION}.path"


def _mode_problems(config: DictConfig) -> Iterator[str]:
    """Yield settings that veRL's asynchronous trainers refuse late or silently mishandle."""
    corrections = ("rollout_is", "rollout_rs", "bypass_mode")
    corrects = any(select(config, f"algorithm.rollout_correction.{name}") for name in corrections)
    if corrects and not select(config, LOG_PROBS_KEY):
        yield f"algorithm.rollout_correction needs the log-probabilities of sampled tokens: set {LOG_PROBS_KEY}=True"
    if select(config, TRAINER_MODE) != "separate_async":
        return
    updates = select(config, "trainer.v1.separate_async.parameter_sync_step")
    batch = select(config, "data.train_batch_size")
    mini_batch = select(config, "actor_rollout_ref.actor.ppo_mini_batch_size")
    if batch != updates * mini_batch:
        yield (
            f"separate_async makes parameter_sync_step={updates} updates of ppo_mini_batch_size={mini_batch} prompts "
            f"per step, not of data.train_batch_size={batch}: set trainer.v1.separate_async.parameter_sync_step="
            f"{max(1, batch // mini_batch)}"
        )
    if not select(config, "actor_rollout_ref.rollout.nnodes"):
        yield "separate_async needs GPUs that generate: set actor_rollout_ref.rollout.nnodes"
    key = "actor_rollout_ref.rollout.checkpoint_engine.backend"
    if (backend := select(config, key)) == "naive":
        yield f"separate_async sends weights to other GPUs: set {key}=nccl, not naive"
    elif select(config, "trainer.device") == "cpu" and backend != "gloo":
        yield f"{key}={backend} needs GPUs: on the CPU, use +async=separate_cpu"
    model = "actor_rollout_ref.model"
    if (select(config, f"{model}.lora_rank") or 0) > 0 and not select(config, f"{model}.lora.merge"):
        yield f"separate_async sends whole weights: set {model}.lora.merge=True"
    if not select(config, "actor_rollout_ref.hybrid_engine"):
        yield "veRL 0.9.1 fails under actor_rollout_ref.hybrid_engine=False (logger.info(flush=True)): leave it True"


def _vote_problems(options: VoteOptions, n: int) -> Iterator[str]:
    key = "reward.reward_kwargs.vote"
    if options.vote_n is not None and options.vote_n < n:
        yield (
            f"{key}.vote_n={options.vote_n} is less than the {n} responses that are trained on "
            "(actor_rollout_ref.rollout.n): raise it, or set it to null"
        )
    if options.min_votes > (voters := options.vote_n or n):
        yield f"{key}.min_votes={options.min_votes} can never be reached by {voters} responses: lower it"
