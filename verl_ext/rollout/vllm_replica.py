"""Registers `GroupReplica` for `rollout.name=vllm`.

Separate from `group_server`, so that vLLM is imported only where a replica is created.
"""

from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry


def _load() -> type[RolloutReplica]:
    from verl_ext.rollout.group_server import GroupReplica

    return GroupReplica


RolloutReplicaRegistry.register("vllm", _load)
