#!/bin/bash
# Removes what the demo left: the cluster with all that is in it, or, from a cluster of
# the caller's, the demo's namespace and the operator.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../cluster/versions.sh
source e2e/cluster/versions.sh
# shellcheck source=../cluster/state.sh
source e2e/cluster/state.sh
set_cluster "${DEMO_CLUSTER:-demo}"

# The runs go before the operator, which removes their finalizers.
leave_cluster() {
    local kubectl=("$cache/bin/kubectl" --kubeconfig "$E2E_KUBECONFIG")
    "${kubectl[@]}" delete namespace pgrescue-demo --ignore-not-found
    "$cache/bin/helm" --kubeconfig "$E2E_KUBECONFIG" --namespace pgrescue-system uninstall pgrescue --ignore-not-found --wait
    "${kubectl[@]}" delete --filename crds --ignore-not-found
    "${kubectl[@]}" delete namespace pgrescue-system --ignore-not-found
}

if [ "$(cluster_provider)" = given ]; then leave_cluster; else e2e/cluster/down.sh "$name"; fi
rm -rf "$cache/logs/$name"
echo "The demo is gone. What it built stays in $cache, so that the next one starts at once; remove that folder to be rid of it too."
