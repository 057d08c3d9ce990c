//! PostgreSQL: connections, client programs, catalogs, archives, foreign servers.

pub mod archive;
