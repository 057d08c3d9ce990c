#!/bin/bash
# Makes the cluster on the first start, as the official image `postgres` does, with
# POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS and the
# .sql and .sh files of /docker-entrypoint-initdb.d; then runs the server.
set -euo pipefail

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

run_psql() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host /tmp --username "$user" --dbname "$1"
}

make_cluster() {
    # shellcheck disable=SC2086 # several words
    initdb --username "$user" --pwfile <(echo "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}") \
        --auth-local trust --auth-host scram-sha-256 ${POSTGRES_INITDB_ARGS:-} >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata "$PGDATA" --wait start --options "-c listen_addresses= -c unix_socket_directories=/tmp" >/dev/null
    if [ "$database" != postgres ]; then
        run_psql postgres <<<"CREATE DATABASE \"${database//\"/\"\"}\";"
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) "$file" ;;
            *.sql) run_psql "$database" <"$file" ;;
        esac
    done
    pg_ctl --pgdata "$PGDATA" --wait --mode fast stop >/dev/null
}

if [ "${1:-}" = postgres ]; then
    [ -s "$PGDATA/PG_VERSION" ] || make_cluster
    set -- "$@" -c "listen_addresses=*" -c unix_socket_directories=/tmp
fi
exec "$@"
