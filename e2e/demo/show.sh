# What the demo prints. Sourced by up.sh.
# shellcheck shell=bash
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# $1 what failed, then lines that help
die() {
    printf '\ndemo: %s\n' "$1" >&2
    shift
    [ $# = 0 ] || printf '      %s\n' "$@" >&2
    exit 1
}

# $1 milliseconds
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 / 100 % 10)); }

# How long it is since $1, a value of EPOCHREALTIME.
since() { seconds $(((${EPOCHREALTIME/./} - ${1/./}) / 1000)); }

# Runs a part of the demo with its output in a log, and says how long it took.
# $1 what it does, $2 name of the log, then the command
step() {
    local what=$1 log=$logs/$2.log start=$EPOCHREALTIME
    shift 2
    if ! "$@" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        die "failed: $what" "The whole log is $log." "Run make demo again to go on, or make demo-down to remove everything."
    fi
    printf '%9s  %s\n' "$(since "$start")" "$what"
}

# $1 bytes
megabytes() { printf '%d.%d MB' $(($1 / 1000000)) $(($1 / 100000 % 10)); }

# Shows a run as its status moves, to its end. On a terminal one line that changes,
# elsewhere a line for each step. $1 kind/name
follow() {
    local run=$1 watch watcher phase percent step rows bytes message shown='' line
    local fields='{.status.phase}|{.status.progress.percent}|{.status.progress.step}|{.status.progress.rows}|{.status.progress.bytes}|{.status.conditions[?(@.type=="Ready")].message}{"\n"}'
    exec {watch}< <(exec timeout 600 "$cache/bin/kubectl" --kubeconfig "$kubeconfig" --namespace "$namespace" get "$run" --watch --output jsonpath="$fields" 2>&1)
    watcher=$!
    while IFS='|' read -r -u $watch phase percent step rows bytes message; do
        line=$(printf '  %-24s %-9s' "$run" "$phase")
        case $phase in
            Running) line+=$(printf ' %3d%%  %-22s %9d rows  %s' "${percent:-0}" "${step:-starting}" "${rows:-0}" "$(megabytes "${bytes:-0}")") ;;
            *) line+=" $message" ;;
        esac
        if [ -t 1 ]; then
            printf '\r\e[K%.*s' "$(($(tput cols) - 1))" "$line"
        elif [ "$phase $step" != "$shown" ]; then
            say "$line"
            shown="$phase $step"
        fi
        case $phase in Succeeded | AlreadyApplied | Planned | Failed) break ;; esac
    done
    kill "$watcher"
    exec {watch}<&-
    if [ -t 1 ]; then printf '\n'; fi
    [ "$phase" = Succeeded ] || explain_failure "$run"
}

# $1 kind/name
explain_failure() {
    local hint job
    hint=$(kubectl get "$1" --output jsonpath='{.status.failure.reason}: {.status.failure.message} {.status.failure.hint}')
    job=$(kubectl get "$1" --output jsonpath='{.status.job.name}')
    die "$1 did not succeed: $hint" \
        "its log:          $kubectl_of_user logs job/$job" \
        "the operator's:   $kubectl_of_user --namespace $operator_namespace logs deployment/pgrescue-operator" \
        "docs/troubleshooting.md explains each reason."
}

# The steps of a run with how long each took. $1 kind/name
show_steps() {
    kubectl get "$1" --output json | jq -r '.status.steps[] |
        [.durationMilliseconds // 0, .name, .message // ""] | @tsv' |
        while IFS=$'\t' read -r milliseconds step message; do
            printf '%9s  %-18s %s\n' "$(seconds "$milliseconds")" "$step" "$message"
        done
}
