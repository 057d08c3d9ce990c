//! What a session that reads rows is set to, so that the same rows give the same bytes in every session.

use crate::agent::backup::pg_dump::NO_ENCODING;

/// As pg_dump sets its own (`setup_connection`): no time limit, nothing hidden, values in full and in a form that does
/// not depend on the role or the database. Parallel scans and synchronised ones would give the rows in another order
/// each time; compiling a COPY costs more than it saves.
const SETTINGS: &str = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET row_security = off; SET datestyle = ISO; \
    SET intervalstyle = postgres; SET extra_float_digits = 3; SET bytea_output = hex; SET timezone = 'UTC'; \
    SET xmloption = content; SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0; SET jit = off";

/// Views and foreign tables cannot stand in for tables, where the server knows the setting (17.6, 16.10, …).
const NO_VIEWS: &str = "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings \
    WHERE name = 'restrict_nonsystem_relation_kind'";

/// The statements for a session that copies rows from a server of this major version.
pub(super) fn statements(server_major: u32, client_encoding: &str) -> String {
    let mut sql = format!("SET client_encoding = '{client_encoding}'; {SETTINGS}");
    if server_major >= 14 {
        sql.push_str("; SET enable_tidscan = on; SET idle_session_timeout = 0");
    }
    if server_major >= 17 {
        sql.push_str("; SET transaction_timeout = 0");
    }
    sql.push_str("; ");
    sql.push_str(NO_VIEWS);
    sql
}

/// `client_encoding` of the sessions, and of those that load the rows: names and rows in one encoding that has all of
/// the server's characters; where the server has none, bytes go as they are.
pub(super) fn client_encoding(server_encoding: &str) -> &'static str {
    if server_encoding == NO_ENCODING {
        NO_ENCODING
    } else {
        "UTF8"
    }
}
