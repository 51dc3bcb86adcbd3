#!/usr/bin/env bash
# Runs `examples/slurm.sh` under a real Slurm: the tiny recipe on two virtual machines with one "GPU" each. node2 is
# switched off during a step and restarted; Slurm must then continue the job to the report.
#
#     apt-get install slurm-wlm munge iproute2
#     tests/cluster/slurm.sh [key=value ...]
#
# Needs root, a checkout after `make setup`, 16 GiB, and ten minutes or more on two cores. Not part of `make test`.
NEEDED_COMMANDS="slurmctld slurmd munged sbatch"
NEEDED_PACKAGES="slurm-wlm munge"
# shellcheck source=tests/cluster/virtual_machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/virtual_machines.sh"

# shellcheck source=tests/cluster/tiny_run.sh
source "$here/tiny_run.sh"

start_munge() {
    mkdir -p "/srv/$1/munge"
    chmod 700 "/srv/$1/munge"
    ${on:-} munged --key-file=/srv/munge.key --socket=/run/munge.socket --pid-file=/run/munged.pid \
        --seed-file="/srv/$1/munge/seed" --log-file="/srv/$1/munge/log" --force
}

start_slurm() {
    dd if=/dev/urandom of=/srv/munge.key bs=1024 count=1 status=none
    chmod 600 /srv/munge.key
    export SLURM_CONF=/srv/slurm.conf
    cat >"$SLURM_CONF" <<END
ClusterName=virtual
SlurmctldHost=controller($(address_of controller))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge.socket
CredType=cred/munge
StateSaveLocation=/srv/controller/slurm
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=/srv/controller/slurmctld.log
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/srv/%n/slurm
SlurmdLogFile=/srv/%n/slurmd.log
# CPUs are only scheduling tokens for Ray, so there may be more than the machine has.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=2
NodeName=node1 NodeAddr=$(address_of node1) CPUs=16 RealMemory=16000 Gres=gpu:1
NodeName=node2 NodeAddr=$(address_of node2) CPUs=16 RealMemory=16000 Gres=gpu:1
PartitionName=all Nodes=node1,node2 Default=YES
END
    echo "Name=gpu File=/dev/null" >/srv/gres.conf
    mkdir -p /srv/{controller,node1,node2}/slurm
    start_munge controller
    slurmctld
}

boot_into_slurm() {
    boot "$1"
    on="on $1" start_munge "$1"
    on "$1" slurmd -N "$1"
    until [[ $(sinfo --noheader --nodes="$1" --format=%t) == @(idle|mix|alloc|comp) ]]; do sleep 1; done
}

state_of() { scontrol show job "$1" | grep -oP 'JobState=\K\w+ Reason=\S+'; }

ended() { [[ $(state_of "$1") != @(PENDING|RUNNING|COMPLETING|CONFIGURING)* ]]; }

runs() { [[ $(state_of "$1") == RUNNING* ]]; }

start_slurm
boot_into_slurm node1
boot_into_slurm node2
sinfo --Node --long

job=$(sbatch --parsable --gpus-per-node=1 --cpus-per-task=16 --output=/srv/job.log examples/slurm.sh mmupt_tiny \
    hardware=cpu "${overrides[@]}")
say "job $job"
has_ended() { ended "$job"; }
pull_the_plug_in_step_3 has_ended /srv/job.log
while runs "$job"; do sleep 1; done
show_failure

boot_into_slurm node2
say "node2 is started again"
until [[ $(state_of "$job") == PENDING* ]] || ended "$job"; do sleep 1; done
say "job $job: $(state_of "$job"); left on node1:" "$(on node1 ps -e -o comm= | paste -sd ' ')"
# Slurm would otherwise wait two more minutes.
scontrol update "job=$job" starttime=now
until runs "$job" || ended "$job"; do sleep 1; done
say "job $job: $(state_of "$job") again"
until ended "$job"; do sleep 1; done
[[ $(state_of "$job") == COMPLETED* ]] || fail_with_log /srv/job.log "job $job: $(state_of "$job")"
check_result
for name in node1 node2; do
    say "left on $name:" "$(on "$name" ps -e -o comm= | paste -sd ' ')"
done
