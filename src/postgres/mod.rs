//! PostgreSQL: connections, client programs, catalogs, archives, foreign servers.

pub mod archive;
pub mod catalog;
pub mod chunking;
pub mod client_tools;
pub mod connection;
pub mod foreign;
pub mod memory_file;
pub mod pooler;
pub mod program;
pub mod quote;
pub mod sqlstate;
pub mod tls;
pub mod wire;
