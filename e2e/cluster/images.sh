#!/bin/bash
# Builds the images of the tests and the demo and, where a cluster is named, brings
# them into it. Prints their names as shell assignments:
#   OPERATOR_IMAGE AGENT_IMAGE VERSITYGW_IMAGE POSTGRES_17_IMAGE POSTGRES_18_IMAGE
# What has not changed is neither built nor brought again.
#
# usage: images.sh [NAME]         NAME: a cluster of up.sh
#
# PGRESCUE_BINARY   the binary to put into operator and agent; default: cargo builds it
# E2E_KUBECONFIG    with a cluster of the caller's, its nodes pull the servers from
#                   public registries; operator and agent are pushed to $E2E_REGISTRY,
#                   or taken as OPERATOR_IMAGE and AGENT_IMAGE say
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
# shellcheck source=versions.sh
source "$here/versions.sh"
# shellcheck source=state.sh
source "$here/state.sh"

if [ -n "${E2E_KUBECONFIG:-}" ] && [ -n "${OPERATOR_IMAGE:-}" ] && [ -n "${AGENT_IMAGE:-}" ]; then
    printf '%s\n' "OPERATOR_IMAGE=$OPERATOR_IMAGE" "AGENT_IMAGE=$AGENT_IMAGE" "VERSITYGW_IMAGE=$VERSITYGW_IMAGE"
    for major in $POSTGRESQL_SERVERS; do echo "POSTGRES_${major}_IMAGE=$POSTGRES_IMAGE:$major"; done
    exit
fi
# The mounts of a build end with this process.
if [ "${1:-}" = --own-mounts ]; then
    shift
else
    [ "$(id -u)" = 0 ] || { echo "images: needs root, as building images without a Docker engine does" >&2; exit 1; }
    exec unshare --mount --propagation private "$here/images.sh" --own-mounts "$@"
fi

images=$cache/images
layout=$images/layout
logs=$cache/logs

say() { echo "images: $*" >&2; }
die() { say "$*"; exit 1; }

# Its storage lies in the cache, so that removing the cache removes all of it.
buildah() {
    command buildah --root "$images/storage" --runroot "$images/storage/run" "$@"
}

logged() {
    local log=$logs/image-$1.log
    shift
    "$@" >"$log" 2>&1 </dev/null || { tail -n 40 "$log" >&2; die "failed: $*; the whole log is $log"; }
}

# No registry is needed: Debian's packages make an image that stands in for the
# official one, so that the Dockerfiles keep their ordinary FROM.
make_base() {
    local name=docker.io/library/debian:bookworm-slim
    if buildah inspect --type image "$name" >/dev/null 2>&1; then return; fi
    say "making the base image from Debian's packages"
    rm -f "$images/base.tar"
    # Like the official image: no documentation, and apt keeps no caches.
    # shellcheck disable=SC2016 # mmdebstrap expands it
    logged base mmdebstrap --variant=apt \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='printf "%s\n" "Dir::Cache::pkgcache \"\";" "Dir::Cache::srcpkgcache \"\";" "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb\"; };" >"$1/etc/apt/apt.conf.d/docker-clean"' \
        --customize-hook='rm -f "$1"/var/cache/apt/*.bin' \
        bookworm "$images/base.tar"
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$images/base.tar" / >/dev/null
    buildah config --cmd bash "$container"
    buildah commit --quiet --rm "$container" "$name" >/dev/null
    rm -f "$images/base.tar"
}

# Copies $1 to $2 unless it is the same: an unchanged file keeps its cached layer.
stage() {
    if ! cmp -s "$1" "$2"; then
        mkdir -p "$(dirname "$2")"
        cp "$1" "$2.part" && touch -d @0 "$2.part" && mv "$2.part" "$2"
    fi
}

# $1 image, $2 Dockerfile, $3 context, then further arguments
build() {
    local image=$1 dockerfile=$2 context=$3 previous
    shift 3
    previous=$(cat "$images/$image.id" 2>/dev/null || true)
    logged "$image" buildah bud --isolation chroot --pull-never --layers --timestamp 0 \
        --file "$dockerfile" --iidfile "$images/$image.id" "$@" "$context"
    # The layers that the new image shares with the previous one stay.
    if [ -n "$previous" ] && [ "$previous" != "$(cat "$images/$image.id")" ]; then
        buildah rmi "$previous" >/dev/null 2>&1 || true
    fi
}

# The server of the newest major, for exports: $1 major, $2 where to.
stage_server() {
    local program file
    for program in initdb postgres; do stage "$cache/pg/$1/bin/$program" "$2/bin/$program"; done
    (cd "$cache/pg/$1" && find share lib -type f ! -name '*.a') | while read -r file; do
        stage "$cache/pg/$1/$file" "$2/$file"
    done
}

build_pgrescue() {
    local binary=${PGRESCUE_BINARY:-} major program context=$images/context
    if [ -z "$binary" ]; then
        (cd "$repository" && cargo build --quiet --locked --bin pgrescue >&2)
        binary=${CARGO_TARGET_DIR:-$repository/target}/debug/pgrescue
    fi
    strip -o "$images/pgrescue" "$binary"
    stage "$images/pgrescue" "$context/pgrescue"
    for major in $POSTGRESQL_CLIENTS; do
        for program in pg_dump pg_dumpall pg_restore psql pg_basebackup; do
            stage "$cache/pg/$major/bin/$program" "$context/postgresql/$major/bin/$program"
        done
        stage "$cache/pg/$major/lib/libpq.so.5" "$context/postgresql/$major/lib/libpq.so.5"
    done
    stage_server "$major" "$context/postgresql/$major"
    local target
    for target in operator agent; do
        build $target "$repository/Dockerfile" "$context" --target $target \
            --build-arg BINARY=prebuilt-binary --build-arg CLIENTS=prebuilt-clients
    done
}

build_postgres() {
    local major=$1 context=$images/context-postgres-$1
    local version
    version=$(cat "$cache/stamps/pg$major")
    if [ "$(cat "$context/version" 2>/dev/null)" != "$version" ]; then
        rm -rf "$context" && mkdir -p "$context"
        cp -a "$cache/pg/$major" "$context/server"
        echo "$version" >"$context/version"
    fi
    stage "$here/images/postgres-entrypoint.sh" "$context/postgres-entrypoint.sh"
    build "postgres-$major" "$here/images/postgres.Dockerfile" "$context" --build-arg MAJOR="$major"
}

build_versitygw() {
    stage "$cache/bin/versitygw" "$images/context-versitygw/versitygw"
    build versitygw "$here/images/versitygw.Dockerfile" "$images/context-versitygw"
}

# The name of a built image. Ours are named by their content, so that a Deployment
# changes when the binary does.
image_name() {
    local id
    id=$(sed 's/^sha256://' "$images/$1.id")
    case $1 in
        operator | agent) echo "pgrescue.dev/$1:${id:0:12}" ;;
        postgres-*) echo "$POSTGRES_IMAGE:${1#postgres-}" ;;
        versitygw) echo "$VERSITYGW_IMAGE" ;;
    esac
}

# Writes all images into one OCI layout, in which they share their layers.
write_layout() {
    local image
    mkdir -p "$layout/blobs/sha256"
    for image in "${all[@]}"; do
        if ! cmp -s "$images/$image.id" "$layout/$image.id"; then
            copy_to_layout "$image"
            cp "$images/$image.id" "$layout/$image.id"
        fi
    done
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    # containerd looks for the name of an image in this annotation.
    for image in "${all[@]}"; do
        jq --arg digest "$(cat "$layout/$image.digest")" --argjson size "$(stat -c %s "$layout/blobs/sha256/$(cat "$layout/$image.digest")")" \
            --arg name "$(image_name "$image")" --null-input \
            '{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: ("sha256:" + $digest), size: $size,
              annotations: {"io.containerd.image.name": $name}}'
    done | jq --slurp '{schemaVersion: 2, manifests: .}' >"$layout/index.json"
    comm -23 <(cd "$layout" && printf '%s\n' blobs/sha256/* | sort) <(blobs) | (cd "$layout" && xargs --no-run-if-empty rm)
}

# Copies image $1 with its layers as they are: packing them costs more time than it saves.
copy_to_layout() {
    local folder=$layout/$1.folder digest
    rm -rf "$folder"
    logged "layout-$1" buildah push --quiet --format oci --disable-compression "$(cat "$images/$1.id")" "dir:$folder"
    digest=$(sha256sum <"$folder/manifest.json" | cut -d' ' -f1)
    mv "$folder/manifest.json" "$layout/blobs/sha256/$digest"
    rm "$folder/version"
    mv "$folder"/* "$layout/blobs/sha256/"
    rmdir "$folder"
    echo "$digest" >"$layout/$1.digest"
}

# The files of the layout that its images are made of.
blobs() {
    local manifest
    for manifest in $(jq -r '.manifests[].digest' "$layout/index.json"); do
        echo "$manifest"
        jq -r '.config.digest, .layers[].digest' "$layout/blobs/sha256/${manifest#sha256:}"
    done | sed 's|^sha256:|blobs/sha256/|' | sort -u
}

# Brings the images into the cluster: those files that were not brought before.
bring() {
    local brought=$state/images missing
    mkdir -p "$brought"
    touch "$brought/blobs"
    missing=$(comm -23 <(blobs) "$brought/blobs")
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # one word each
    tar --directory "$layout" --create --file "$brought/archive.tar" oci-layout index.json $missing
    case $(cluster_provider) in
        kind) logged bring kind load image-archive --name "pgrescue-$name" "$brought/archive.tar" ;;
        node) "$here/node/import.sh" "$state" "$brought/archive.tar" ;;
    esac
    rm "$brought/archive.tar"
    blobs | sort -u - "$brought/blobs" >"$brought/blobs.part"
    mv "$brought/blobs.part" "$brought/blobs"
}

print_names() {
    local image variable
    for image in "${all[@]}"; do
        variable=${image^^}
        echo "${variable//-/_}_IMAGE=$(image_name "$image")"
    done
}

# The caller's cluster: only operator and agent come from here.
names_for_given_cluster() {
    local target
    for target in operator agent; do
        local variable=${target^^}_IMAGE name
        if [ -n "${!variable:-}" ]; then
            name=${!variable}
        else
            [ -n "${E2E_REGISTRY:-}" ] || die "the cluster of E2E_KUBECONFIG needs E2E_REGISTRY to push to, or OPERATOR_IMAGE and AGENT_IMAGE"
            name=$E2E_REGISTRY/$(image_name $target | sed 's|^pgrescue.dev/|pgrescue-|')
            logged "push-$target" buildah push --quiet "$(cat "$images/$target.id")" "docker://$name"
        fi
        echo "$variable=$name"
    done
    for target in "${all[@]:2}"; do
        echo "$(tr a-z- A-Z_ <<<"$target")_IMAGE=$(image_name "$target")"
    done
}

all=(operator agent versitygw)
for major in $POSTGRESQL_SERVERS; do all+=("postgres-$major"); done

mkdir -p "$images" "$logs"
"$here/install.sh" packages
# shellcheck disable=SC2086,SC2046 # one word each
"$repository/tests/parts/install.sh" $(printf 'pg%s ' $POSTGRESQL_CLIENTS) versitygw
exec 9>"$images/lock"
flock 9
rm -rf "$images/storage/run" # what it says about mounts is about an earlier process
make_base
build_pgrescue
build_versitygw
for major in $POSTGRESQL_SERVERS; do build_postgres "$major"; done

if [ -n "${E2E_KUBECONFIG:-}" ]; then
    names_for_given_cluster
else
    if [ $# -gt 0 ]; then
        set_cluster "$1"
        # The cluster may come up beside the build.
        mkdir -p "$cache/clusters"
        exec 8>"$cache/clusters/$name.lock"
        flock 8
        [ -e "$state/ready" ] || [ "$(cluster_provider)" = kind ] || die "cluster $1 is not up; bring it up with up.sh $1"
        write_layout
        bring
    fi
    print_names
fi
