//! Tests against real PostgreSQL servers and a real S3 server.
