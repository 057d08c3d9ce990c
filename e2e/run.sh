#!/bin/bash
# Runs the tests on Kubernetes and removes the cluster that they brought up.
# Arguments go to the test program: a part of a test's name runs that test.
# E2E_KEEP=1 leaves the cluster up, so that the next run starts at once.
# E2E_CLUSTER names the cluster (default e2e), so that two checkouts can test at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck disable=SC2329 # called by the trap
down() { [ "${E2E_KEEP:-}" = 1 ] || e2e/cluster/down.sh "${E2E_CLUSTER:-e2e}"; }
trap down EXIT
# shellcheck source=cluster/state.sh
source e2e/cluster/state.sh
case $(cluster_provider) in
    given) ;; # and the caller's kubectl and helm
    kind) e2e/cluster/install.sh packages helm ;;
    node) e2e/cluster/install.sh packages kubernetes coredns helm ;;
esac
cargo test --locked --test e2e -- --test-threads 4 "$@"
