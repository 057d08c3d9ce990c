#!/bin/bash
# Brings up the Kubernetes cluster NAME and prints the path of its kubeconfig.
# Nothing happens when it is up already.
#
# usage: up.sh NAME
#
# In this order: the cluster of $E2E_KUBECONFIG; kind where it and a Docker engine
# are there; else one node in namespaces of its own on this machine (needs root).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
source "$here/versions.sh"
# shellcheck source=state.sh
source "$here/state.sh"
set_cluster "${1:?usage: up.sh NAME}"

say() { echo "cluster $name: $*" >&2; }
die() { say "$*"; exit 1; }
kubectl() { "$cache/bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

# Waits until a command succeeds. $1 seconds, $2 what is waited for, then the command.
await() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "no $what in time; the logs are in $state/logs"
        [ ! -e "$state/failed" ] || die "$(cat "$state/failed"); the logs are in $state/logs"
        sleep 0.1
    done
}

up_kind() {
    mkdir -p "$state"
    kind get clusters 2>/dev/null | grep -qx "pgrescue-$name" ||
        kind create cluster --quiet --wait 120s --name "pgrescue-$name" --kubeconfig "$kubeconfig" >&2
}

is_up() {
    [ -e "$state/ready" ] && kubectl get --raw /readyz --request-timeout 2s >/dev/null 2>&1
}

connect_node() {
    local pid=$1
    ip link add "$interface" type veth peer name eth0 netns "$pid"
    ip address add "$host_address/30" dev "$interface"
    ip link set "$interface" up
}

up_node() {
    [ "$(id -u)" = 0 ] || die "needs root to make a node on this machine; or name a cluster in E2E_KUBECONFIG, or install kind and Docker"
    if is_up; then return; fi
    "$here/install.sh" packages kubernetes coredns
    "$here/node/remove.sh" "$state"
    mkdir -p "$state/logs"
    take_slot
    "$here/node/pause.sh" "$cache/images/pause.tar"
    "$here/node/configure.sh" "$state" "$slot"
    # The locks stay with this process, not with the node.
    setsid unshare --mount --net --propagation private \
        "$here/node/run.sh" "$state" "$slot" </dev/null >"$state/logs/node.log" 2>&1 8>&- &
    await 10 "network namespace" test -e "$state/node.pid"
    connect_node "$(cat "$state/node.pid")"
    await 60 "containerd" test -S "$state/containerd.sock"
    "$here/node/import.sh" "$state" "$cache/images/pause.tar"
    await 60 "API server" kubectl get --raw /readyz
    await 60 "cluster DNS" kubectl apply -f "$state/manifests"
    await 60 "ready node" sh -c "'$cache/bin/kubectl' --kubeconfig '$kubeconfig' wait --for=condition=Ready node/node1 --timeout=1s"
    await 60 "service account" kubectl get serviceaccount --namespace default default
    await 60 "answer from CoreDNS" curl -fsS --noproxy "*" --max-time 1 "http://$node_address:8181/ready"
    touch "$state/ready"
}

mkdir -p "$cache/clusters"
exec 8>"$cache/clusters/$name.lock"
flock 8
case $(cluster_provider) in
    given) kubeconfig=$E2E_KUBECONFIG ;;
    kind) up_kind ;;
    node) up_node ;;
esac
echo "$kubeconfig"
