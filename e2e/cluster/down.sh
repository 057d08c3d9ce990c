#!/bin/bash
# Removes the cluster NAME with all it left on the machine, whatever state it is in.
# A cluster of $E2E_KUBECONFIG is not ours and stays.
#
# usage: down.sh NAME
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
source "$here/versions.sh"
# shellcheck source=state.sh
source "$here/state.sh"
set_cluster "${1:?usage: down.sh NAME}"

mkdir -p "$cache/clusters"
exec 8>"$cache/clusters/$name.lock"
flock 8
case $(cluster_provider) in
    given) ;;
    kind)
        kind delete cluster --quiet --name "pgrescue-$name" >&2
        rm -rf "$state"
        ;;
    node) "$here/node/remove.sh" "$state" ;;
esac
