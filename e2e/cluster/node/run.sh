#!/bin/bash
# The node itself. Started in a mount and a network namespace of its own, with the
# state folder $1 and the slot $2; ends when one of its programs does.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../versions.sh
source "$here/versions.sh"
# shellcheck source=../state.sh
source "$here/state.sh"
state=$1
set_slot "$2"
export PATH=$cache/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

# Everything started from here on, containers too, is found by the node's cgroup.
join_cgroup() {
    local hierarchy
    for hierarchy in $(cgroup_hierarchies); do mkdir -p "$hierarchy/$cgroup"; done
    if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
        # Those that are missing; systemd enables most.
        for controller in cpu cpuset memory pids; do echo "+$controller"; done >/sys/fs/cgroup/cgroup.subtree_control
    fi
    mkdir "$(cgroup_of_processes)/$cgroup/node"
    echo $$ >"$(cgroup_of_processes)/$cgroup/node/cgroup.procs"
}

# What the programs leave in these folders goes with the namespace.
hide_folders() {
    mount --make-rshared /
    local folder
    for folder in /run /var/lib /var/log; do mount -t tmpfs -o mode=0755 tmpfs $folder; done
    mkdir -p /run/netns /run/lock
}

# kubelet would write these settings of the whole machine. It is shown files that
# hold what it wants.
hide_settings() {
    local setting
    mkdir -p /run/settings
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        local path=${setting%=*} value=${setting#*=}
        echo "$value" >"/run/settings/${path//\//.}"
        mount --bind "/run/settings/${path//\//.}" "/proc/sys/$path"
    done
}

join_network() {
    ip link set lo up
    echo $$ >"$state/node.pid"
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
    ip address add "$node_address/30" dev eth0
    ip link set eth0 up
    ip route add default via "$host_address"
    echo 1 >/proc/sys/net/ipv4/ip_forward
    [ ! -e /proc/sys/net/bridge ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
}

start() {
    local program=$1
    { "$@" >"$state/logs/$program.log" 2>&1 || true; echo "$program ended" >"$state/failed"; } &
}

await_answer() {
    until curl -sf --cacert "$state/certificates/ca.crt" --max-time 1 "$1" >/dev/null; do sleep 0.05; done
}

start_control_plane() {
    local certificates=$state/certificates
    start etcd --data-dir "$state/etcd" --unsafe-no-fsync --logger zap --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
    await_answer http://127.0.0.1:2379/health
    start kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$node_address" \
        --service-cluster-ip-range 10.96.0.0/16 --authorization-mode Node,RBAC --allow-privileged \
        --client-ca-file "$certificates/ca.crt" \
        --tls-cert-file "$certificates/api-server.crt" --tls-private-key-file "$certificates/api-server.key" \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$certificates/service-accounts.pub" \
        --service-account-signing-key-file "$certificates/service-accounts.key" \
        --kubelet-client-certificate "$certificates/admin.crt" --kubelet-client-key "$certificates/admin.key" \
        --kubelet-preferred-address-types InternalIP \
        --audit-policy-file "$state/audit.yaml" --audit-log-path "$state/logs/audit.log"
    await_answer https://127.0.0.1:6443/readyz
    start kube-controller-manager --leader-elect=false --kubeconfig "$state/controller-manager.kubeconfig" \
        --use-service-account-credentials --root-ca-file "$certificates/ca.crt" \
        --service-account-private-key-file "$certificates/service-accounts.key" \
        --cluster-signing-cert-file "$certificates/ca.crt" --cluster-signing-key-file "$certificates/ca.key"
    start kube-scheduler --leader-elect=false --kubeconfig "$state/scheduler.kubeconfig"
}

start_node() {
    start kubelet --config "$state/kubelet.yaml" --kubeconfig "$state/kubelet.kubeconfig" \
        --root-dir "$state/kubelet" --hostname-override node1 --node-ip "$node_address"
    start kube-proxy --config "$state/kube-proxy.yaml"
    start coredns -conf "$state/Corefile"
}

join_cgroup
hide_folders
hide_settings
join_network
start containerd --config "$state/containerd.toml"
start_control_plane
start_node
wait -n
