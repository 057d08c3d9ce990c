//! Tests against real PostgreSQL servers, 12 to 18, and a real S3 server.
//!
//! `parts` starts the servers, `fixtures` holds what the databases are filled
//! with; every other module is one subject.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod fixtures;
mod parts;
mod reach;

mod archive;
mod backup;
mod bad_stores;
mod catalog;
mod client_programs;
mod command_line;
mod connection;
mod docs;
mod encryption;
mod export;
mod foreign_rewrite;
mod parts_are_real;
mod repository;
mod restore;
mod stock_round_trip;
mod store;
mod whole;
mod wire;

/// The data folders of servers: see `parts::process::new_data_folder`.
const DATA_IN_MEMORY: bool = true;
