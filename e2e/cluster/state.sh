# Where a cluster's state is kept, and what of it is on the machine. Sourced by
# up.sh, down.sh and images.sh after versions.sh.
# shellcheck shell=bash disable=SC2034,SC2154

# The state of cluster $1: its kubeconfig, logs, etcd, containerd's store.
set_cluster() {
    name=$1
    [[ $name =~ ^[a-z][a-z0-9-]{0,30}$ ]] || { echo "cluster: not a name: '$name' (small letters, digits, dashes)" >&2; exit 2; }
    case $cache in /run/* | /var/run/* | /var/lib/* | /var/log/*)
        echo "cluster: PGRESCUE_CACHE=$cache is hidden inside the node; choose a folder outside /run, /var/lib and /var/log" >&2
        exit 2 ;;
    esac
    state=$cache/clusters/$name
    kubeconfig=$state/kubeconfig
    # A socket's path has at most 107 bytes, and kubelet puts some below this folder.
    [ ${#state} -le 64 ] || { echo "cluster: PGRESCUE_CACHE=$cache is too long a path for sockets; choose a shorter one" >&2; exit 2; }
}

# Which Kubernetes: the caller's, kind where a Docker engine runs it, else our own node.
cluster_provider() {
    if [ -n "${E2E_KUBECONFIG:-}" ]; then
        echo given
    elif command -v kind >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
        echo kind
    else
        echo node
    fi
}

# A node has a slot: the number in its addresses, its interface and its cgroup.
# Everything that a node leaves outside its namespaces follows from the slot, so
# that it can be removed whatever state the node is in.
set_slot() {
    slot=$1
    interface=pgrescue$slot
    cgroup=pgrescue$slot
    host_address=198.18.$slot.1 # a range that RFC 2544 keeps out of real networks
    node_address=198.18.$slot.2
}

# The folders in which the machine's cgroup hierarchies are mounted.
cgroup_hierarchies() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo /sys/fs/cgroup
    else
        local hierarchy
        for hierarchy in /sys/fs/cgroup/*/; do
            [ -e "$hierarchy/cgroup.procs" ] && [ ! -L "${hierarchy%/}" ] && echo "${hierarchy%/}"
        done
    fi
}

# The hierarchy by which a node's processes are found: kubelet uses it too.
cgroup_of_processes() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/pids; fi
}

# Takes the first slot that nobody has: making a folder is atomic.
take_slot() {
    local number
    for number in {0..63}; do
        set_slot "$number"
        if mkdir "$(cgroup_of_processes)/$cgroup" 2>/dev/null; then
            echo "$number" >"$state/slot"
            return
        fi
    done
    echo "cluster: 64 clusters are up on this machine; remove one with down.sh" >&2
    exit 1
}
