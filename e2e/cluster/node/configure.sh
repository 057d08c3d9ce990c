#!/bin/bash
# Writes what the node of the state folder $1 with slot $2 is configured by:
# certificates, kubeconfigs, the settings of its programs, the first manifests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../versions.sh
source "$here/versions.sh"
# shellcheck source=../state.sh
source "$here/state.sh"
state=$1
set_slot "$2"
umask 077
mkdir -p "$state"/{certificates,cni,manifests,volumes}
cd "$state"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "certificates/$1.key"; }

# $1 name, $2 subject, $3 subjectAltName
certificate() {
    key "$1"
    openssl req -new -key "certificates/$1.key" -subj "$2" |
        openssl x509 -req -days 365 -CA certificates/ca.crt -CAkey certificates/ca.key -set_serial "0x$(openssl rand -hex 8)" \
            -extfile <(printf '%s\n' 'extendedKeyUsage=serverAuth,clientAuth' ${3:+"subjectAltName=$3"}) \
            -out "certificates/$1.crt" 2>/dev/null
}

# $1 file, $2 certificate, $3 address of the API server
kubeconfig() {
    cat >"$1" <<EOF
apiVersion: v1
kind: Config
current-context: pgrescue
clusters: [{name: pgrescue, cluster: {server: "https://$3:6443", certificate-authority-data: $(base64 -w0 certificates/ca.crt)}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 "certificates/$2.crt"), client-key-data: $(base64 -w0 "certificates/$2.key")}}]
contexts: [{name: pgrescue, context: {cluster: pgrescue, user: $2}}]
EOF
}

key ca
openssl req -x509 -new -key certificates/ca.key -subj /CN=pgrescue-e2e -days 365 -out certificates/ca.crt
key service-accounts
openssl ec -in certificates/service-accounts.key -pubout -out certificates/service-accounts.pub 2>/dev/null
certificate api-server /CN=kube-apiserver \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:10.96.0.1,IP:127.0.0.1,IP:$node_address"
certificate kubelet /O=system:nodes/CN=system:node:node1 "IP:$node_address,DNS:node1"
certificate admin /O=system:masters/CN=admin
certificate controller-manager /CN=system:kube-controller-manager
certificate scheduler /CN=system:kube-scheduler
certificate kube-proxy /CN=system:kube-proxy
for user in kubelet controller-manager scheduler kube-proxy; do
    kubeconfig "$user.kubeconfig" "$user" 127.0.0.1
done
kubeconfig kubeconfig admin "$node_address"

cat >containerd.toml <<EOF
version = 2
root = "$state/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "$state/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "pgrescue.dev/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$state/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
EOF

cat >cni/10-bridge.conflist <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.244.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF

# What service accounts ask for: a test compares it with what they may do.
cat >audit.yaml <<EOF
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, userGroups: [system:serviceaccounts:kube-system, system:nodes]}
  - {level: Metadata, userGroups: [system:serviceaccounts]}
EOF

cat >kubelet.yaml <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/certificates/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $state/certificates/kubelet.crt
tlsPrivateKeyFile: $state/certificates/kubelet.key
containerRuntimeEndpoint: unix://$state/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
enforceNodeAllocatable: []
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
serializeImagePulls: false
registerWithTaints: []
# Secrets that appear late reach a running pod within this time.
syncFrequency: 10s
podLogsDir: $state/pods
resolvConf: /dev/null
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
EOF

cat >kube-proxy.yaml <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: node1
clientConnection: {kubeconfig: $state/kube-proxy.kubeconfig}
clusterCIDR: 10.244.0.0/16
iptables: {minSyncPeriod: 100ms}
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
EOF

# Nothing answers for names outside the cluster: no packet leaves the machine.
cat >Corefile <<EOF
cluster.local 10.in-addr.arpa {
    bind $node_address
    errors
    ready $node_address:8181
    kubernetes {
        kubeconfig $state/kubeconfig
        ttl 1
    }
}
. {
    bind $node_address
    template ANY ANY {
        rcode NXDOMAIN
    }
}
EOF

cat >manifests/dns.yaml <<EOF
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports:
    - {name: dns, port: 53, protocol: UDP}
    - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-node, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [$node_address], conditions: {ready: true}}]
ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
EOF
