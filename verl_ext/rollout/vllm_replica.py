"""Registers the replica for `rollout.name=vllm`, whose server takes the requests of a prompt in one call.

Apart from that server, so that vLLM is imported only where a replica is made.
"""

from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry


def _load() -> type[RolloutReplica]:
    from verl_ext.rollout.group_server import GroupReplica

    return GroupReplica


RolloutReplicaRegistry.register("vllm", _load)
