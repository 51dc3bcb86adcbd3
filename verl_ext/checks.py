"""What the plugin demands of a configuration, checked before anything expensive starts. Pure: imports no veRL."""

from omegaconf import DictConfig, OmegaConf

from verl_ext.collapse import read_rule
from verl_ext.rewards.settings import read_settings
from verl_ext.votes import VotePolicy

AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
REWARD_MANAGERS = ("majority_vote", "ground_truth", "random", "entropy")
AGENT_LOOP_KEY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"


def check_config(config: DictConfig) -> None:
    """Refuse, with ValueError naming key and fix, a configuration under which the vote would be wrong or unused.

    Nothing is asked of a configuration with a reward manager that is not of this plugin.
    """
    name = OmegaConf.select(config, "reward.reward_manager.name")
    if name not in REWARD_MANAGERS:
        return
    if (supervised := bool(OmegaConf.select(config, "data.supervised"))) != (name == "ground_truth"):
        raise ValueError(
            f"data.supervised={supervised} does not go with reward.reward_manager.name={name}: only ground_truth reads "
            "the truth of training rows, and needs it"
        )
    if OmegaConf.select(config, AGENT_LOOP_KEY) != AGENT_LOOP_MANAGER:
        raise ValueError(
            f"reward.reward_manager.name={name} needs whole groups: set {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
        )
    if not OmegaConf.select(config, "trainer.use_v1"):
        raise ValueError(f"reward.reward_manager.name={name} needs veRL's v1 trainer: set trainer.use_v1=True")
    n = OmegaConf.select(config, "actor_rollout_ref.rollout.n")
    if n < 2:
        raise ValueError(
            f"a group takes two responses a prompt at least: set actor_rollout_ref.rollout.n >= 2, not {n}"
        )
    _check_policy(read_settings(OmegaConf.select(config, "reward.reward_kwargs")).policy, n)
    if stop_on_collapse := OmegaConf.select(config, "mmupt.stop_on_collapse"):
        read_rule(stop_on_collapse)
    if name == "entropy" and not OmegaConf.select(config, "actor_rollout_ref.rollout.calculate_log_probs"):
        raise ValueError(
            "reward.reward_manager.name=entropy needs the log-probabilities of tokens: set "
            "actor_rollout_ref.rollout.calculate_log_probs=True"
        )
    filters = OmegaConf.select(config, "algorithm.filter_groups")
    # All else that a response is scored with is the same in its whole group, so that no group would ever be kept.
    if filters and filters.enable and filters.metric != "reward":
        raise ValueError(
            f"set algorithm.filter_groups.metric=reward, not {filters.metric}: nothing else tells responses apart"
        )
    if OmegaConf.select(config, "reward.reward_model.enable"):
        raise ValueError(f"{name} uses no reward model: set reward.reward_model.enable=False")


def _check_policy(policy: VotePolicy, n: int) -> None:
    key = "reward.reward_kwargs.vote"
    if policy.vote_n is not None and policy.vote_n < n:
        raise ValueError(
            f"{key}.vote_n={policy.vote_n} is less than the {n} responses that are trained on "
            "(actor_rollout_ref.rollout.n): raise it, or set it to null"
        )
    if policy.min_votes > (voters := policy.vote_n or n):
        raise ValueError(f"{key}.min_votes={policy.min_votes} can never be reached by {voters} responses: lower it")
