#!/bin/bash
# Fills a server of the demo on its first start; mounted where the image `postgres`
# looks for such files. SERVER says which one it is.
set -Eeuo pipefail

# Half filled is worse than empty: the next start of the container begins anew.
trap 'rm -rf "$PGDATA"' ERR

# $1 database, then psql's arguments
run() {
    psql --no-psqlrc --quiet --output /dev/null --set ON_ERROR_STOP=1 --username postgres --dbname "$@"
}

billing_login=(--command '\getenv billing_user BILLING_USER' --command '\getenv billing_password BILLING_PASSWORD')
case $SERVER in
    production)
        run postgres --file /sql/roles.sql
        run orders "${billing_login[@]}" --set billing_host=billing-production --file /sql/data.sql
        ;;
    staging)
        run postgres --file /sql/roles.sql
        ;;
    billing-*)
        run billing "${billing_login[@]}" --set environment_name="${SERVER#billing-}" --file /sql/billing.sql
        ;;
esac
