//! Tests against real PostgreSQL servers, 12 to 18, and a real S3 server.
//!
//! `parts` starts the servers, `fixtures` holds what the databases are filled
//! with; every other module is one subject.

mod fixtures;
mod parts;

mod parts_are_real;
