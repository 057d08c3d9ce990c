//! Which options of wrappers, servers, user mappings and foreign tables may be shown and stored. A short list of names
//! is known to be harmless; everything else counts as a secret.

/// Names whose values are no secret: where the data is, and how it is fetched (postgres_fdw, dblink_fdw, file_fdw, and
/// the same words of other wrappers).
const HARMLESS: &[&str] = &[
    "analyze_sampling",
    "application_name",
    "async_capable",
    "batch_size",
    "client_encoding",
    "column_name",
    "connect_timeout",
    "database",
    "dbname",
    "delimiter",
    "encoding",
    "extensions",
    "fallback_application_name",
    "fdw_startup_cost",
    "fdw_tuple_cost",
    "fetch_size",
    "filename",
    "format",
    "gssencmode",
    "header",
    "host",
    "hostaddr",
    "import_collate",
    "import_default",
    "import_generated",
    "import_not_null",
    "keep_connections",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "parallel_abort",
    "parallel_commit",
    "password_required",
    "port",
    "schema_name",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "table_name",
    "target_session_attrs",
    "tcp_user_timeout",
    "truncatable",
    "updatable",
    "use_remote_estimate",
    "use_scram_passthrough",
    "user",
    "username",
];

/// Whether an option may be shown and stored. A harmless name with a value that looks like a connection string with
/// credentials in it is none.
#[must_use]
pub fn is_harmless(name: &str, value: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok() && !looks_secret(value)
}

/// Whether a value looks as if it carried a credential: `scheme://user:password@host`, or `password=` as conninfo has it.
pub(crate) fn looks_secret(value: &str) -> bool {
    let lower = value.to_lowercase();
    let authority = lower.split_once("://").map(|(_, rest)| rest);
    let in_uri = authority.is_some_and(|rest| rest.contains('@'));
    let in_pairs = ["password", "passwd", "pwd", "secret", "token"].iter().any(|word| {
        lower
            .split_once(word)
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('='))
    });
    in_uri || in_pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(HARMLESS.is_sorted());
    }

    #[test]
    fn what_is_not_known_to_be_harmless_is_a_secret() {
        assert!(is_harmless("host", "db.internal"));
        assert!(is_harmless("user", "o'brien"));
        for (name, value) in [
            ("password", "x"),
            ("sslpassword", "x"),
            ("PASSWORD", "x"),
            ("secret_token", "x"),
            ("odd \" option", "x"),
            ("dbname", "host=h password = x"),
            ("host", "postgresql://u:p@h"),
        ] {
            assert!(!is_harmless(name, value), "{name}");
        }
    }
}
