//! PostgreSQL: connections, client programs, catalogs, archives, foreign servers.
