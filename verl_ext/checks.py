"""What the plugin demands of a configuration, checked before anything expensive starts. Pure: imports no veRL."""

from omegaconf import DictConfig, OmegaConf

AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loop.GroupAgentLoopManager"
AGENT_LOOP_KEY = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"


def check_config(config: DictConfig) -> None:
    """Refuse, with ValueError naming key and fix, a configuration under which the vote would be wrong or unused.

    Nothing is asked of a configuration with another reward manager than `majority_vote`.
    """
    if OmegaConf.select(config, "reward.reward_manager.name") != "majority_vote":
        return
    if OmegaConf.select(config, AGENT_LOOP_KEY) != AGENT_LOOP_MANAGER:
        raise ValueError(
            f"reward.reward_manager.name=majority_vote needs whole groups: set {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"
        )
    if not OmegaConf.select(config, "trainer.use_v1"):
        raise ValueError("reward.reward_manager.name=majority_vote needs veRL's v1 trainer: set trainer.use_v1=True")
    n = OmegaConf.select(config, "actor_rollout_ref.rollout.n")
    if n < 2:
        raise ValueError(f"a vote needs at least two responses a prompt: set actor_rollout_ref.rollout.n >= 2, not {n}")
    if OmegaConf.select(config, "reward.reward_model.enable"):
        raise ValueError("majority_vote uses no reward model: set reward.reward_model.enable=False")
    if OmegaConf.select(config, "reward.custom_reward_function.path") is not None:
        raise ValueError("majority_vote calls no reward function: set reward.custom_reward_function.path=null")
