# shellcheck shell=bash
# The run that the scripts in this folder start twice: four steps of mmupt_tiny on node1 and node2. node2 fails in the
# third. Sourced after virtual_machines.sh.

run_folder=/srv/run
checkpoints=$run_folder/checkpoints
train_log=$run_folder/logs/train.log
# shellcheck disable=SC2034 # read by the scripts that source this file
overrides=(
    mmupt.run_folder="$run_folder"
    data.train_batch_size=8
    actor_rollout_ref.actor.ppo_mini_batch_size=8
    trainer.total_training_steps=4
    trainer.test_freq=4
    mmupt.evaluation_samples=2
    "$@"
)

say() { echo "== $(date +%T) $*"; }

# fail_with_log LOG MESSAGE...: print the end of a log and fail.
fail_with_log() {
    tail -n 100 "$1"
    fail "${*:2}"
}

# pull_the_plug_in_step_3 HAS_ENDED LOG: wait for the checkpoint of step 2, then switch off node2. Fails, showing LOG, if
# the command HAS_ENDED succeeds earlier.
pull_the_plug_in_step_3() {
    until [[ -e $checkpoints/global_step_2/whole ]]; do
        if $1; then fail_with_log "$2" "the run ended before step 3"; fi
        sleep 0.1
    done
    sleep 1
    [[ ! -e $checkpoints/global_step_3/whole ]] || fail "step 3 ended before node2 was switched off"
    say "step 2 is saved, node2 is switched off"
    pull_the_plug node2
    plug_pulled=$SECONDS
}

# Print how the run ended without node2, and check that it trained no further step.
show_failure() {
    say "$((SECONDS - plug_pulled)) s later the run has ended:"
    # The trainer may have been on node2 itself.
    grep -aoE 'watchdog: the run ends: .{200}|ray.exceptions.*Error: .*|The node with .* marked dead' "$train_log" | head -n 3
    [[ ! -e $checkpoints/global_step_3/whole ]] || fail "step 3 went on without node2"
}

# Check the report, steps, shards and processes of both starts together.
check_result() {
    [[ -s $run_folder/report.md ]] || fail_with_log "$train_log" "there is no report"
    local steps
    steps=$(grep -aoP '(?<![_\w])step:\K\d+(?= - vote/)' "$train_log" | paste -sd ' ')
    [[ $steps == "1 2 3 4" ]] || fail_with_log "$train_log" "trained steps $steps, not 1 2 3 4"
    for rank in 0 1; do
        [[ -s $checkpoints/global_step_4/actor/model_world_size_2_rank_$rank.pt ]] || fail "rank $rank saved no shard"
    done
    # Ray names the address of a process that is not on the machine of the launcher.
    for process in WorkerDict GroupServer; do
        for place in "" ", ip=$(address_of node2)"; do
            grep -aqP "\\($process pid=\\d+\\Q$place\\E\\)" "$train_log" || fail_with_log "$train_log" "no $process on one of the nodes"
        done
    done
    say "the second start trained steps 3 and 4, with an FSDP2 rank and a vLLM replica on each node; its report:"
    sed -n '1,/^$/p;/^|/p' "$run_folder/report.md"
}
