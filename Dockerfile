# Two images of one binary:
#   docker build --target operator -t pgrescue-operator .
#   docker build --target agent    -t pgrescue-agent .
# The agent also has PostgreSQL's client programs, 14 to 18, where Debian puts them:
# /usr/lib/postgresql/<major>/bin. Of 18 it has the server too: `pgrescue export` runs
# one for itself, for rows that are stored in binary.
#
# The tests (e2e/cluster/images.sh) build the same two targets from a folder that
# holds a binary from cargo and client programs, and choose those by
#   --build-arg BINARY=prebuilt-binary --build-arg CLIENTS=prebuilt-clients
# Old buildah does not follow the defaults below; it wants both arguments named.
ARG BINARY=compiled-binary
ARG CLIENTS=packaged-clients

FROM rust:1.95-bookworm AS compile
RUN apt-get update \
 && apt-get install --yes --no-install-recommends clang libclang-14-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin pgrescue \
 && cp target/release/pgrescue /pgrescue

FROM scratch AS compiled-binary
COPY --from=compile /pgrescue /pgrescue

FROM scratch AS prebuilt-binary
COPY pgrescue /pgrescue

FROM ${BINARY} AS binary

FROM debian:bookworm-slim AS runtime
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 pgrescue \
 && useradd --uid 65532 --gid 65532 --home-dir / --no-create-home --shell /usr/sbin/nologin pgrescue
# Left alone, glibc takes larger and larger blocks from heaps that it seldom gives back:
# the peak of a backup was then a fifth higher the longer it ran (mallopt(3)).
ENV MALLOC_MMAP_THRESHOLD_=1048576

FROM runtime AS operator
COPY --from=binary /pgrescue /usr/bin/pgrescue
USER 65532:65532
ENTRYPOINT ["/usr/bin/pgrescue"]
CMD ["operator"]

# The repository of the PostgreSQL project; its key comes with Debian's package.
FROM runtime AS packaged-clients
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-common \
 && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
 && apt-get install --yes --no-install-recommends \
      postgresql-client-14 postgresql-client-15 postgresql-client-16 postgresql-client-17 postgresql-client-18 \
 && echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf \
 && apt-get install --yes --no-install-recommends postgresql-18 \
 && rm -rf /var/lib/apt/lists/*

FROM runtime AS prebuilt-clients
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgssapi-krb5-2 libicu72 liblz4-1 libreadline8 libssl3 libxml2 libzstd1 zlib1g \
 && rm -rf /var/lib/apt/lists/*
COPY postgresql /usr/lib/postgresql

FROM ${CLIENTS} AS agent
COPY --from=binary /pgrescue /usr/bin/pgrescue
USER 65532:65532
ENTRYPOINT ["/usr/bin/pgrescue"]
CMD ["agent"]
