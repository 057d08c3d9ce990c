#!/bin/bash
# The demo: a cluster, the operator, servers with data, then one backup and one restore
# as config/samples asks for them. Leaves all of it up; down.sh removes it. A second run
# keeps the servers and makes the backup and the restore anew.
#
# DEMO_CLUSTER     name of the cluster; default demo
# PGRESCUE_BINARY  the binary for the images; default: cargo builds it
# E2E_KUBECONFIG   a cluster of the caller's in place of one made here
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../cluster/versions.sh
source e2e/cluster/versions.sh
# shellcheck source=../cluster/state.sh
source e2e/cluster/state.sh
# shellcheck source=show.sh
source e2e/demo/show.sh
set_cluster "${DEMO_CLUSTER:-demo}"
namespace=pgrescue-demo
operator_namespace=pgrescue-system
logs=$cache/logs/$name

kubectl() { "$cache/bin/kubectl" --kubeconfig "$kubeconfig" --namespace "$namespace" "$@"; }
helm() { "$cache/bin/helm" --kubeconfig "$kubeconfig" --namespace "$operator_namespace" "$@"; }

# $1 deployment, $2 database, $3 role, $4 SQL
query() {
    kubectl exec "deployment/$1" --container postgres -- \
        psql --no-psqlrc --quiet --no-align --tuples-only --field-separator '  ' --set ON_ERROR_STOP=1 \
        --username "$3" --dbname "$2" --command "$4"
}

start_cluster() { e2e/cluster/up.sh "$name" >"$logs/kubeconfig"; }
build_images() { e2e/cluster/images.sh "$name" >"$logs/images.env"; }

install_operator() {
    # shellcheck source=/dev/null
    source "$logs/images.env"
    helm upgrade --install pgrescue charts/pgrescue --create-namespace --wait --timeout 3m \
        --set "image.operator=$OPERATOR_IMAGE" --set "image.agent=$AGENT_IMAGE"
}

# A namespace that refuses pods which do not meet Pod Security `restricted`.
start_servers() {
    kubectl apply --filename - <<YAML
{apiVersion: v1, kind: Namespace, metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}}
YAML
    kubectl create configmap sql --dry-run=client --output yaml \
        --from-file e2e/demo/fill.sh --from-file e2e/demo/roles.sql --from-file e2e/demo/data.sql --from-file e2e/demo/billing.sql |
        kubectl apply --filename -
    kubectl apply --filename e2e/demo/servers.yaml
    kubectl wait deployment --all --for condition=Available --timeout 5m
}

# What an earlier run asked for. The artefact of its backup stays in the bucket.
forget_earlier_run() {
    local database
    kubectl get --filename config/samples --ignore-not-found --output name | grep -q . || return 0
    say "a demo is up: its backup and its restore are made anew"
    database=$(kubectl get pgrestore --output jsonpath='{.items[0].spec.target.database}')
    kubectl delete --filename config/samples --ignore-not-found --wait --timeout 2m >"$logs/delete.log"
    query staging postgres postgres "DROP DATABASE IF EXISTS \"${database//\"/\"\"}\" WITH (FORCE)"
}

# The rows of the billing servers say which of them they come from. $1 server, $2 database
who_answers() {
    local answer
    answer=$(query "$1" "$2" app "SELECT count(*) || ' rows of ' || environment FROM remote.invoice GROUP BY environment")
    printf '  %-11s remote.invoice has %s\n' "$1:" "$answer"
}

show_results() {
    local database
    database=$(kubectl get pgrestore --output jsonpath='{.items[0].spec.target.database}')
    heading "Status"
    kubectl get pgbackups,pgrestores
    heading "How long each step of the backup took"
    show_steps "$backup"
    heading "How long each step of the restore took"
    show_steps "$restore"
    heading "Foreign servers, before and after"
    kubectl get "$restore" --output json | jq -r '.status.resolved.foreignServers[] |
        "  \(.name)  \(.before.host) -> \(.after.host)", "      \(.userMappings[])"'
    heading "The same foreign table, asked as the role app"
    who_answers production orders
    who_answers staging "$database"
    heading "Objects in the bucket"
    kubectl exec deployment/s3 -- find /data/backups -type f -not -path '*/.sgwtmp/*' -printf '%11s  %P\n'
}

what_next() {
    heading "What to try next"
    cat <<TEXT
  export KUBECONFIG=$kubeconfig PATH=$cache/bin:\$PATH
  kubectl config set-context --current --namespace $namespace
  kubectl get $backup --output yaml       # steps, warnings, artefact
  kubectl exec -it deployment/staging -- psql -U postgres $(kubectl get pgrestore --output jsonpath='{.items[0].spec.target.database}')
  kubectl delete $restore && kubectl apply -f config/samples && kubectl get pgrestores --watch
                        # AlreadyApplied: the target remembers the request, nothing is changed
  make demo             # backup and restore once more
  make demo-down        # removes all of it
TEXT
}

# What the first run on a machine builds. The scripts say what they install.
install_tools() {
    e2e/cluster/install.sh packages kubernetes coredns helm
    # shellcheck disable=SC2046,SC2086 # one word each
    tests/parts/install.sh versitygw $(printf 'pg%s ' $POSTGRESQL_CLIENTS)
    [ -n "${PGRESCUE_BINARY:-}" ] || cargo build --quiet --locked --bin pgrescue
}

if [ "$(cluster_provider)" = node ] && [ "$(id -u)" != 0 ]; then
    die "making a Kubernetes node on this machine needs root" \
        "Run it as root, or name a cluster in E2E_KUBECONFIG, or install kind and Docker."
fi
[ -n "${PGRESCUE_BINARY:-}" ] || command -v cargo >/dev/null || die "cargo is missing; pgrescue is built from source" "Install Rust 1.95 or later: https://rustup.rs"
command -v go >/dev/null || die "go is missing; Kubernetes and the S3 server are built from source" "Install Go 1.26 or later: https://go.dev/dl"
mkdir -p "$logs"
demo_start=$EPOCHREALTIME
trap 'jobs=$(jobs -p); [ -z "$jobs" ] || wait $jobs' EXIT

heading "Preparing"
say "The first run on a machine builds Kubernetes and pgrescue: about 25 minutes on 2 cores."
install_tools
step "cluster $name up" cluster start_cluster & cluster=$!
step "images of operator, agent and servers built" images build_images
wait $cluster
kubeconfig=$(cat "$logs/kubeconfig")
kubectl_of_user="$cache/bin/kubectl --kubeconfig $kubeconfig --namespace $namespace"
step "operator installed by Helm" helm install_operator & operator=$!
step "servers up: production with 200 MB of rows, staging, the billing servers, S3" servers start_servers
wait $operator

heading "One backup, one restore: kubectl apply --filename config/samples"
forget_earlier_run
applied=$(kubectl apply --filename config/samples --output name)
backup=$(grep -m1 ^pgbackup <<<"$applied")
restore=$(grep -m1 ^pgrestore <<<"$applied")
follow "$backup"
follow "$restore"
show_results
what_next
printf '\nThe whole demo took %s.\n' "$(since "$demo_start")"
