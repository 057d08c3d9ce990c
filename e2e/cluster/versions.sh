# Versions of what the cluster of the tests and the demo is made of. Sourced.
# shellcheck shell=bash disable=SC2034
KUBERNETES=1.34.10
COREDNS=v1.13.1
HELM=v4.2.4
CARGO_DENY=0.20.2
POSTGRESQL_SERVERS="17 18"          # images of the demo's servers
POSTGRES_IMAGE=docker.io/library/postgres
VERSITYGW_IMAGE=docker.io/versity/versitygw:v1.7.0
POSTGRESQL_CLIENTS="14 15 16 17 18" # in the agent's image
cache=${PGRESCUE_CACHE:-$HOME/.cache/pgrescue}
