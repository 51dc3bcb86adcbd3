#!/usr/bin/env bash
# The commands of "Without Slurm" in examples/cluster.md, as they are written there, on two virtual machines: the tiny
# recipe over both, one switched off in the midst of a step, and once it is back in the same Ray cluster the same command
# once more, which continues to the report.
#
#     tests/cluster/ray_start.sh [key=value ...]
#
# As root, in a checkout where `make setup` has run; 16 GiB, and ten minutes or more on two cores. No part of `make test`.
#
# Changed in the commands are the names that a reader has to fill in, the recipe, and that Ray is told of a "GPU".
# shellcheck source=tests/cluster/virtual_machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/virtual_machines.sh"
# shellcheck source=tests/cluster/tiny_run.sh
source "$here/tiny_run.sh"

# Print block N of the indented blocks of commands in the section.
commands() {
    sed -n '/^## Without Slurm/,/^## /p' examples/cluster.md | awk -v n="$1" '
        /^       / { if (!inside) block++; inside = 1; if (block == n) print; next }
        { inside = 0 }' |
        sed -e "s/HEAD/node1/; s/TOKEN\$/${token:-}/; s/mmupt_mathvista/mmupt_tiny/" \
            -e 's/ray start/& --num-cpus=16 --num-gpus=1/' \
            -e "s|hardware=.*\"|hardware=cpu trainer.nnodes=2 ${overrides[*]}\"|"
}

# run_commands NAME SCRIPT: let a machine run what a user would type there. Its output goes to /srv/NAME.log.
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
