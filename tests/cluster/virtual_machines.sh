# shellcheck shell=bash
# Virtual machines for the scripts in this folder, which source this file first. Needs root, iproute2 and util-linux.
#
# Restarts the sourcing script as the first process of new namespaces with their own network. `boot NAME` starts a
# machine on that network: more namespaces, with their own hostname, address, processes, /tmp, /run and /dev/shm. All
# machines share the rest of the file system: the checkout at the same path, as on a cluster, and /srv.
#
# /srv is a scratch folder that is removed at the end. When the first process ends, for whatever reason, the kernel ends
# all processes of all machines and removes their networks, so nothing outlives the script.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

if [[ -z ${VIRTUAL_MACHINES_SCRATCH:-} ]]; then
    ((EUID == 0)) || fail "creating namespaces needs root: run this script as root"
    for command in ip unshare nsenter ${NEEDED_COMMANDS:-}; do
        command -v "$command" >/dev/null || fail "$command is missing (Debian: apt-get install iproute2 util-linux ${NEEDED_PACKAGES:-})"
    done
    VIRTUAL_MACHINES_SCRATCH=$(mktemp -d)
    export VIRTUAL_MACHINES_SCRATCH
    trap 'exit 130' INT TERM HUP
    trap 'kill -KILL "$inside" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$VIRTUAL_MACHINES_SCRATCH"' EXIT
    unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc bash "$0" "$@" &
    inside=$!
    wait "$inside"
    exit
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
[[ $checkout != /tmp/* && $checkout != /srv/* ]] || fail "$checkout: machines replace /tmp and /srv; move the checkout"

# N of each machine's address 10.77.0.N/24, which exists only inside the namespaces.
declare -A host_numbers=([controller]=1 [node1]=11 [node2]=12)
declare -A machines=()

address_of() { echo "10.77.0.${host_numbers[$1]}"; }

# Make this namespace the machine "controller", with a switch for the other machines.
start_network() {
    mount --bind "$VIRTUAL_MACHINES_SCRATCH" /srv
    mkdir -p /srv/home
    export HOME=/srv/home
    {
        echo "127.0.0.1 localhost"
        for name in "${!host_numbers[@]}"; do echo "$(address_of "$name") $name"; done
    } >/srv/hosts
    mount --bind /srv/hosts /etc/hosts
    ip link set lo up
    # With a fixed address: by default, it is the lowest of the ports' addresses, which changes when a machine leaves.
    ip link add switch address 02:00:00:00:00:01 type bridge
    ip address add "$(address_of controller)/24" dev switch
    ip link set switch up
    own_folders controller
}

# own_folders NAME: give the calling machine a hostname and private folders.
own_folders() {
    hostname "$1"
    mkdir -p "/srv/$1/tmp"
    mount --bind "/srv/$1/tmp" /tmp
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
}

# boot NAME: start a machine and connect it. Its /tmp survives restarts, like a disk.
boot() {
    local name=$1 pid
    unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc bash -c "
        $(declare -f own_folders)
        own_folders $name
        ip link set lo up
        until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
        ip address add $(address_of "$name")/24 dev eth0
        ip link set eth0 up
        touch /run/booted
        # The first process inherits and reaps the orphans.
        sleep infinity & wait" &
    pid=$!
    until [[ $(readlink "/proc/$pid/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.1; done
    ip link add "$name" type veth peer name eth0 netns "$pid"
    ip link set "$name" master switch up
    machines[$name]=$pid
    until on "$name" test -e /run/booted 2>/dev/null; do sleep 0.1; done
}

# on NAME COMMAND...: run a command on a machine, in the checkout.
on() {
    local first
    first=$(tr -d ' ' <"/proc/${machines[$1]}/task/${machines[$1]}/children")
    nsenter --target "$first" --mount --net --pid --ipc --uts -- env --chdir="$checkout" "${@:2}"
}

# pull_the_plug NAME: cut the network, then kill all processes, so that no packet announces their end.
pull_the_plug() {
    ip link set "$1" down
    kill -KILL "${machines[$1]}"
    wait "${machines[$1]}" 2>/dev/null || true
    ip link delete "$1" 2>/dev/null || true
    unset "machines[$1]"
}

start_network
cd "$checkout"
