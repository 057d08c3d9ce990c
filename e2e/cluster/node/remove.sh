#!/bin/bash
# Removes the node of the state folder $1, whatever state it is in. The caller
# holds the cluster's lock.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../versions.sh
source "$here/versions.sh"
# shellcheck source=../state.sh
source "$here/state.sh"
state=$1

node_processes() {
    find "$(cgroup_of_processes)/$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# A process may fork between being listed and killed: again until none is left.
kill_processes() {
    local processes deadline=$((SECONDS + 30))
    while processes=$(node_processes) && [ -n "$processes" ]; do
        [ $SECONDS -lt $deadline ] || { echo "cluster: these processes do not end: ${processes//$'\n'/ }" >&2; exit 1; }
        # shellcheck disable=SC2086 # one word each
        kill -KILL $processes 2>/dev/null || true
        sleep 0.02
    done
}

remove_cgroups() {
    local hierarchy
    for hierarchy in $(cgroup_hierarchies); do
        [ ! -e "$hierarchy/$cgroup" ] || find "$hierarchy/$cgroup" -depth -type d -exec rmdir {} +
    done
}

# The mounts and the network end with the last process of their namespaces.
if [ -e "$state/slot" ]; then
    set_slot "$(cat "$state/slot")"
    kill_processes
    ip link delete "$interface" 2>/dev/null || true
    remove_cgroups
fi
rm -rf "$state"
