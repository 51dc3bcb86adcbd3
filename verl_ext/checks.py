"""What the plugin demands of a configuration, checked before anything expensive starts. Pure: imports no veRL."""

from omegaconf import DictConfig, OmegaConf

AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
REWARD_MANAGERS = ("majority_vote", "ground_truth", "random")
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
    if OmegaConf.select(config, "reward.reward_model.enable"):
        raise ValueError(f"{name} uses no reward model: set reward.reward_model.enable=False")
    if OmegaConf.select(config, "reward.custom_reward_function.path") is not None:
        raise ValueError(f"{name} calls no reward function: set reward.custom_reward_function.path=null")
