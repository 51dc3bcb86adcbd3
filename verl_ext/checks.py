"""What the plugin demands of a configuration, checked before anything expensive starts. Pure: imports no veRL."""

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from verl_ext.collapse import read_rule
from verl_ext.datasets.parquet import read_columns
from verl_ext.datasets.truth import check_unlabelled, file_list
from verl_ext.defaults import DATASET, SAMPLER, SAMPLER_DEFAULTS, SAMPLER_KEY, uses
from verl_ext.keys import refuse_unknown_keys
from verl_ext.rewards.settings import read_settings
from verl_ext.votes import VotePolicy

AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
REWARD_MANAGERS = ("majority_vote", "ground_truth", "random", "entropy")
AGENT_LOOP_KEY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
REWARD_MANAGER_KEY = "reward.reward_manager.name"
SHARED_PROMPT_AGENT = "shared_prompt_agent"
CHECKPOINT_CALLBACK = "verl_ext.checkpoints.callback.MarkWhole"


def check_config(config: DictConfig, read_files: bool = False) -> None:
    """Refuse a configuration under which the vote, or another part of this plugin, would be wrong or unused.

    Nothing is asked of a configuration that selects no part of this plugin.

    Args:
        config: the composed configuration.
        read_files: whether the data files of `UnlabelledDataset` are there already, to be checked for ground truth.

    Raises:
        ValueError: names the key and the fix of every problem.
    """
    problems = [*_extension_problems(config)]
    if read_files and uses(config, "data.custom_cls", DATASET):
        problems += _file_problems(config)
    name = OmegaConf.select(config, REWARD_MANAGER_KEY)
    if name in REWARD_MANAGERS:
        problems += _reward_problems(config, name)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(problems[0] if len(problems) == 1 else f"{len(problems)} settings must change:{listed}")


def _extension_problems(config: DictConfig) -> Iterator[str]:
    """What is wrong with the parts of the plugin that work with any reward manager."""
    legacy = OmegaConf.select(config, "reward_model.reward_manager")
    if legacy in REWARD_MANAGERS:
        yield f"veRL does not read reward_model.reward_manager={legacy}: set {REWARD_MANAGER_KEY}={legacy}"
    agent, manager = "actor_rollout_ref.rollout.agent.default_agent_loop", OmegaConf.select(config, AGENT_LOOP_KEY)
    if OmegaConf.select(config, agent) == SHARED_PROMPT_AGENT and manager != AGENT_LOOP_MANAGER:
        yield f"{agent}={SHARED_PROMPT_AGENT} exists only under {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}: set both"
    for key, extension in (("data.custom_cls", DATASET), ("trainer.v1.sampler.custom_sampler", SAMPLER)):
        if OmegaConf.select(config, f"{key}.path") == extension[0] and not uses(config, key, extension):
            yield f"{key}.path={extension[0]} needs {key}.name={extension[1]}"
    if uses(config, "trainer.v1.sampler.custom_sampler", SAMPLER):
        yield from _sampler_problems(config)
    asynchronous = "actor_rollout_ref.actor.checkpoint.async_save"
    callback = OmegaConf.select(config, "trainer.checkpoint_callback_class")
    if callback == CHECKPOINT_CALLBACK and OmegaConf.select(config, asynchronous):
        yield f"trainer.checkpoint_callback_class={callback} needs {asynchronous}=False"


def _file_problems(config: DictConfig) -> Iterator[str]:
    """What is wrong with the files that the dataset of this plugin reads, by their columns alone."""
    files = dict.fromkeys(file_list(config.data.val_files), read_columns)
    check = read_columns if OmegaConf.select(config, "data.supervised") else check_unlabelled
    for file, problem_of in (files | dict.fromkeys(file_list(config.data.train_files), check)).items():
        try:
            problem_of(file)
        except (ValueError, OSError) as error:
            yield str(error)


def _sampler_problems(config: DictConfig) -> Iterator[str]:
    mode = OmegaConf.select(config, "trainer.v1.trainer_mode")
    if mode != "sync":
        yield f"{SAMPLER[1]} serves trainer.v1.trainer_mode=sync, not {mode}"
    given = OmegaConf.select(config, SAMPLER_KEY) or {}
    try:
        refuse_unknown_keys(given, SAMPLER_DEFAULTS)
    except ValueError as error:
        yield f"{SAMPLER_KEY}: {error}"
    if stop_on_collapse := OmegaConf.select(config, f"{SAMPLER_KEY}.stop_on_collapse"):
        try:
            read_rule(stop_on_collapse)
        except ValueError as error:
            # Recipes declare it there.
            block = "mmupt" if OmegaConf.select(config, "mmupt.stop_on_collapse") is not None else SAMPLER_KEY
            yield f"{block}.{error}"


def _reward_problems(config: DictConfig, name: str) -> Iterator[str]:
    """What is wrong with the reward manager of this name and what it needs."""
    if (supervised := bool(OmegaConf.select(config, "data.supervised"))) != (name == "ground_truth"):
        yield (
            f"data.supervised={supervised} does not go with {REWARD_MANAGER_KEY}={name}: only ground_truth reads the "
            "ground truth of training rows, and needs it"
        )
    if OmegaConf.select(config, AGENT_LOOP_KEY) != AGENT_LOOP_MANAGER:
        yield f"{REWARD_MANAGER_KEY}={name} needs whole groups: set {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
    if not OmegaConf.select(config, "trainer.use_v1"):
        yield f"{REWARD_MANAGER_KEY}={name} needs veRL's v1 trainer: set trainer.use_v1=True"
    n = OmegaConf.select(config, "actor_rollout_ref.rollout.n") or 1
    if n < 2:
        yield f"a vote takes at least two responses per prompt: set actor_rollout_ref.rollout.n >= 2, not {n}"
    try:
        policy = read_settings(OmegaConf.select(config, "reward.reward_kwargs")).policy
    except ValueError as error:
        yield str(error)
    else:
        yield from _policy_problems(policy, n) if n >= 2 else ()
    if name == "entropy" and not OmegaConf.select(config, "actor_rollout_ref.rollout.calculate_log_probs"):
        yield (
            f"{REWARD_MANAGER_KEY}=entropy needs the log-probabilities of tokens: set "
            "actor_rollout_ref.rollout.calculate_log_probs=True"
        )
    filters = OmegaConf.select(config, "algorithm.filter_groups")
    # All else that a response is scored with is the same in its whole group, so that no group would ever be kept.
    if filters and filters.enable and filters.metric != "reward":
        yield f"set algorithm.filter_groups.metric=reward, not {filters.metric}: nothing else tells responses apart"
    if OmegaConf.select(config, "reward.reward_model.enable"):
        yield f"{name} uses no reward model: set reward.reward_model.enable=False"


def _policy_problems(policy: VotePolicy, n: int) -> Iterator[str]:
    key = "reward.reward_kwargs.vote"
    if policy.vote_n is not None and policy.vote_n < n:
        yield (
            f"{key}.vote_n={policy.vote_n} is less than the {n} responses that are trained on "
            "(actor_rollout_ref.rollout.n): raise it, or set it to null"
        )
    if policy.min_votes > (voters := policy.vote_n or n):
        yield f"{key}.min_votes={policy.min_votes} can never be reached by {voters} responses: lower it"
