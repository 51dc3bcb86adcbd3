#!/usr/bin/env bash
#SBATCH --job-name=mmupt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=48:00:00
#SBATCH --output=mmupt-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#
# One Ray cluster over all nodes of a Slurm job, and one recipe on it, after veRL's own Slurm example. From the checkout,
# which all nodes must see under the same path, once `make setup` has run there on a node with a GPU:
#
#     sbatch examples/slurm.sh mmupt_mathvista
#     sbatch --nodes=4 examples/slurm.sh mmupt_mathvista mmupt.run_folder=/shared/runs/mathvista
#
# The recipe runs with hardware=gpu_nodes_8x80gb and as many machines as the job has; further arguments override. When a
# node fails, the job is queued again and continues from the last checkpoint; so does the same command after any other end.
set -euo pipefail

recipe=${1:?"name a recipe: sbatch examples/slurm.sh mmupt_mathvista [key=value ...]"}
shift
cd "$SLURM_SUBMIT_DIR"

gpus=${SLURM_GPUS_ON_NODE:?"this job has no GPUs: keep --gpus-per-node"}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# The first IPv4 address: Ray splits an address at its colons.
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses | tr ' ' '\n' | grep -m1 -F .)
# Two jobs of one user on one node must not meet.
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$head_ip:$port"
# Ray asks for a token on a machine that has one, as any Ray that was ever started there by itself leaves it.
RAY_AUTH_TOKEN=$(.venv/bin/ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# Every node's Ray ends with the job.
on() {
    local node=$1
    shift
    env --unset=RAY_ADDRESS srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --gpus-per-node="$gpus" \
        .venv/bin/ray start --block --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="$gpus" "$@" &
}
on "$head" --head --include-dashboard=false --node-ip-address="$head_ip" --port="$port"
for node in "${nodes[@]:1}"; do
    on "$node" --address="$RAY_ADDRESS"
done

# veRL refuses to start with fewer GPUs than it was promised, so all nodes must be there first.
alive() {
    .venv/bin/python -c 'import ray; ray.init(log_to_driver=False); print(sum(n["Alive"] for n in ray.nodes()))' 2>/dev/null
}
deadline=$((SECONDS + 600))
until [[ $(alive || echo 0) == "${#nodes[@]}" ]]; do
    if ((SECONDS > deadline)); then
        echo "error: not all of ${#nodes[@]} nodes joined Ray at $RAY_ADDRESS within ten minutes" >&2
        exit 1
    fi
    sleep 5
done

status=0
.venv/bin/mmupt train "$recipe" hardware=gpu_nodes_8x80gb trainer.nnodes="${#nodes[@]}" \
    trainer.n_gpus_per_node="$gpus" "$@" || status=$?

# Slurm queues a job again whose node does not answer for SlurmdTimeout, five minutes; Ray notices within two. Three
# times at most, as a run may bring its nodes down itself.
if ((status != 0 && ${SLURM_RESTART_COUNT:-0} < 3)) && [[ $(alive || echo 0) != "${#nodes[@]}" ]]; then
    echo "a node has failed: the job is queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
