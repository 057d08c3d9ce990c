# A PostgreSQL server for the demo and the tests, started like the official image
# `postgres`, which takes its place in a cluster that can pull images.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgssapi-krb5-2 libicu72 liblz4-1 libreadline8 libssl3 libxml2 libzstd1 tzdata zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 999 postgres \
 && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --create-home postgres \
 && mkdir /docker-entrypoint-initdb.d
ARG MAJOR
COPY server /usr/lib/postgresql/${MAJOR}
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/${MAJOR}/bin \
    LD_LIBRARY_PATH=/usr/lib/postgresql/${MAJOR}/lib \
    LANG=C.UTF-8 \
    PGDATA=/var/lib/postgresql/data
USER 999:999
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
