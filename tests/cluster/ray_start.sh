#!/usr/bin/env bash
# Runs the commands of "Without Slurm" in examples/cluster.md as written, on two virtual machines: the tiny recipe on
# both, node2 switched off during a step, restarted and back in the same Ray cluster, and then the same command again,
# which must continue to the report.
#
#     tests/cluster/ray_start.sh [key=value ...]
#
# Needs root, a checkout after `make setup`, 16 GiB, and ten minutes or more on two cores. Not part of `make test`.
#
# The commands differ from the page in the reader's own names, the recipe, and a "GPU" declared to Ray.
# shellcheck source=tests/cluster/virtual_machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/virtual_machines.sh"
# shellcheck source=tests/cluster/tiny_run.sh
source "$here/tiny_run.sh"

# commands N: print the Nth indented block of commands in the section.
commands() {
    sed -n '/^## Without Slurm/,/^## /p' examples/cluster.md | awk -v n="$1" '
        /^       / { if (!inside) block++; inside = 1; if (block == n) print; next }
        { inside = 0 }' |
        sed -e "s/HEAD/node1/; s/TOKEN\$/${token:-}/; s/mmupt_mathvista/mmupt_tiny/" \
            -e 's/ray start/& --num-cpus=16 --num-gpus=1/' \
            -e "s|hardware=.*\"|hardware=cpu trainer.nnodes=2 ${overrides[*]}\"|"
}

# run_commands NAME SCRIPT: run a script on a machine, with its output in /srv/NAME.log.
run_commands() {
    while read -r line; do echo "$1\$ $line"; done <<<"$2"
    on "$1" bash -euc "$2" >>"/srv/$1.log" 2>&1
}

token=
boot node1
boot node2
first=$(commands 1)
run_commands node1 "$first
echo \$RAY_AUTH_TOKEN >/srv/token" || fail_with_log /srv/node1.log "Ray did not start on node1"
token=$(</srv/token)
join=$(commands 2)
run_commands node2 "$join" || fail_with_log /srv/node2.log "Ray did not start on node2"
train="export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$token
$(commands 3)"

run_commands node1 "$train" &
first_start=$!
has_ended() { ! kill -0 "$first_start" 2>/dev/null; }
pull_the_plug_in_step_3 has_ended /srv/node1.log
wait "$first_start" && fail "the run did not end with node2"
show_failure

boot node2
say "node2 is started again"
run_commands node2 "$join" || fail_with_log /srv/node2.log "Ray did not start on node2"
say "the same command again"
run_commands node1 "$train" || fail_with_log /srv/node1.log "the second start failed"
check_result
for name in node1 node2; do
    run_commands "$name" "$(commands 4)" || fail_with_log "/srv/$name.log" "Ray did not stop on $name"
    say "left on $name:" "$(on "$name" ps -e -o comm= | paste -sd ' ')"
done
