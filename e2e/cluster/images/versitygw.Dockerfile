# An S3 server on a folder, started like the official image `versity/versitygw`.
FROM debian:bookworm-slim
COPY versitygw /usr/local/bin/versitygw
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/versitygw"]
