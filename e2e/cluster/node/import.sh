#!/bin/bash
# Imports image archives into the node of the state folder $1.
# usage: import.sh STATE ARCHIVE...
set -euo pipefail

state=$1
shift
for archive in "$@"; do
    ctr --address "$state/containerd.sock" --namespace k8s.io images import "$archive" >>"$state/logs/import.log" 2>&1 ||
        { tail "$state/logs/import.log" >&2; exit 1; }
done
