#!/bin/bash
# Installs what a cluster on this machine needs, where it is missing:
#   Debian packages       containerd, runc, CNI plugins, etcd, iptables, buildah, …
#   $PGRESCUE_CACHE/bin   Kubernetes, CoreDNS, and Helm, built from the
#                         Go module proxy (8 minutes on 2 cores, once)
# Versions are pinned in versions.sh; Go checks the modules against its checksum
# database. A second run finds everything there and does nothing. Several runs at
# once wait for each other.
#
# usage: install.sh [part ...]
#        part: packages kubernetes coredns helm cargo-deny; default all
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
source "$here/versions.sh"
logs=$cache/logs

say() { echo "install: $*" >&2; }
die() { say "$*"; exit 1; }

# The stamp names the version, so that a new pin installs again.
installed() { [ "$(cat "$cache/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$cache/stamps"; echo "$2" >"$cache/stamps/$1"; }

# Runs a command with its output in a log that is shown when the command fails.
logged() {
    local log=$logs/install-$1.log
    shift
    "$@" >"$log" 2>&1 </dev/null || { tail -n 40 "$log" >&2; die "failed: $*; the whole log is $log"; }
}

# A file or a program that a package brings, and the package.
PACKAGES='
containerd                containerd
runc                      runc
/usr/lib/cni/bridge       containernetworking-plugins
etcd                      etcd-server
iptables                  iptables
conntrack                 conntrack
ip                        iproute2
unshare                   util-linux
setpriv                   util-linux
buildah                   buildah
mmdebstrap                mmdebstrap
openssl                   openssl
curl                      curl
jq                        jq
shellcheck                shellcheck
gcc                       gcc
/usr/include/stdlib.h     libc6-dev
clang                     clang
/usr/lib/llvm-14/lib/libclang.so    libclang-14-dev
'

missing_packages() {
    local probe package
    while read -r probe package; do
        case $probe in
            '') ;;
            /*) [ -e "$probe" ] || echo "$package" ;;
            *) command -v "$probe" >/dev/null || echo "$package" ;;
        esac
    done <<<"$PACKAGES" | sort -u
}

# Packages of servers would start them; the tests start their own.
refuse_service_starts() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f $policy' EXIT
    fi
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "needs root to install the Debian packages: ${missing//$'\n'/ }"
    say "Debian packages: ${missing//$'\n'/ }"
    refuse_service_starts
    export DEBIAN_FRONTEND=noninteractive
    logged apt-update apt-get -qq update
    # shellcheck disable=SC2086 # one word each
    logged apt-install apt-get -qq install --yes --no-install-recommends $missing
}

needs_go() {
    command -v go >/dev/null || die "go is missing; Kubernetes $KUBERNETES and Helm $HELM are built with Go 1.26 or later (https://go.dev/dl)"
}

# Kubernetes cannot be installed with `go install`: its go.mod replaces the
# staging modules by folders of its own repository.
install_kubernetes() {
    installed kubernetes "$KUBERNETES" && return
    needs_go
    say "building Kubernetes $KUBERNETES (about 6 minutes)"
    local build=$cache/build/kubernetes
    rm -rf "$build" && mkdir -p "$build"
    (cd "$build" && logged kubernetes build_kubernetes)
    mv "$build"/bin/* "$cache/bin/"
    rm -rf "$build"
    stamp kubernetes "$KUBERNETES"
}

build_kubernetes() {
    local module program version=k8s.io/component-base/version
    go mod init k8sbin
    go mod edit -godebug=default=go1.24 -require="k8s.io/kubernetes@v$KUBERNETES"
    for module in api apiextensions-apiserver apimachinery apiserver cli-runtime client-go \
        cloud-provider cluster-bootstrap code-generator component-base component-helpers \
        controller-manager cri-api cri-client csi-translation-lib dynamic-resource-allocation \
        endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy \
        kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission \
        sample-apiserver sample-cli-plugin sample-controller; do
        go mod edit -replace="k8s.io/$module=k8s.io/$module@v0.${KUBERNETES#1.}"
    done
    for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        CGO_ENABLED=0 nice -n 10 go build -mod=mod -trimpath \
            -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=34" \
            -o "bin/$program" "k8s.io/kubernetes/cmd/$program" || return
    done
}

# $1 part, $2 version, $3 package
install_go_program() {
    installed "$1" "$2" && return
    needs_go
    say "building $1 $2"
    logged "$1" env GOBIN="$cache/bin" CGO_ENABLED=0 nice -n 10 go install -trimpath -ldflags '-s -w' "$3@$2"
    stamp "$1" "$2"
}

install_cargo_deny() {
    installed cargo-deny "$CARGO_DENY" && return
    say "building cargo-deny $CARGO_DENY"
    # A build folder of its own: its dependencies have other features than ours. Unoptimised
    # and without debug information: building it takes longer than its one run.
    logged cargo-deny env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 nice -n 10 cargo install --locked --quiet --debug \
        --root "$cache" --target-dir "$cache/build/cargo-deny" "cargo-deny@$CARGO_DENY"
    rm -rf "$cache/build/cargo-deny"
    stamp cargo-deny "$CARGO_DENY"
}

install_part() {
    case $1 in
        packages) install_packages ;;
        kubernetes) install_kubernetes ;;
        coredns) install_go_program coredns "$COREDNS" github.com/coredns/coredns ;;
        helm) install_go_program helm "$HELM" helm.sh/helm/v4/cmd/helm ;;
        cargo-deny) install_cargo_deny ;;
        *) die "there is no part $1" ;;
    esac
}

[ "$(uname -sm)" = "Linux x86_64" ] || die "the cluster runs on Linux on x86_64"
[ $# -gt 0 ] || set -- packages kubernetes coredns helm cargo-deny
mkdir -p "$cache/bin" "$cache/build" "$logs"
for part in "$@"; do
    # One lock a part: nobody waits for what they did not ask for.
    exec 9>"$cache/build/$part.lock"
    flock 9
    install_part "$part"
    exec 9>&-
done
