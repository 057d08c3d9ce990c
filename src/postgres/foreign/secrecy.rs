//! Which options are secret. Everything is, but for short lists of names.

use std::sync::LazyLock;

use regex::Regex;

/// Shown in place of a secret value.
pub const MASK: &str = "********";

/// What an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionOf<'a> {
    /// A foreign data wrapper.
    Wrapper,
    /// A foreign server of this wrapper.
    Server(&'a str),
    /// A user mapping.
    UserMapping,
    /// A foreign table, or a column of one.
    Table,
    /// A connection string of libpq.
    Connection,
}

/// Parameters of libpq that say where and how to connect (manual, "Parameter Key Words"). Not in it, on purpose:
/// `password`, `passfile`, `sslpassword`, `service`, `options`, and every OAuth parameter.
const LIBPQ: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Options of `postgres_fdw` besides libpq's (manual, appendix on it).
const POSTGRES_FDW: &[&str] = &[
    "analyze_sampling",
    "async_capable",
    "batch_size",
    "extensions",
    "fdw_startup_cost",
    "fdw_tuple_cost",
    "fetch_size",
    "import_collate",
    "import_default",
    "import_generated",
    "import_not_null",
    "keep_connections",
    "parallel_abort",
    "parallel_commit",
    "truncatable",
    "updatable",
    "use_remote_estimate",
    "use_scram_passthrough",
];

/// Options of `file_fdw` (manual, appendix on it); not `program`, a command line.
const FILE_FDW: &[&str] = &[
    "delimiter",
    "encoding",
    "escape",
    "filename",
    "format",
    "header",
    "null",
    "quote",
];

/// Names that say where a server of any wrapper is.
const ANY_SERVER: &[&str] = &["host", "hostaddr", "port", "dbname", "database", "servername"];

/// Names in a user mapping of any wrapper that are no secret.
const USER_MAPPING: &[&str] = &[
    "user",
    "username",
    "password_required",
    "sslcert",
    "sslkey",
    "use_scram_passthrough",
];

/// A name that announces a secret.
static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)passw|passphrase|pwd|secret|token|credential|auth|signature|private|api.?key|access.?key|program")
        .ok()
});

/// A value that carries a secret whatever its name: a URL with user information, a connection string with a password.
static SECRET_VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?is)://[^/?#]*@|\b(pass(word|wd|phrase|file)?|pwd|secret|token|api[_-]?key)\s*=").ok()
});

/// Whether a text looks as if it carried a credential.
#[must_use]
pub fn looks_secret(text: &str) -> bool {
    // A pattern that did not compile would show nothing: then everything is secret.
    SECRET_VALUE.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// Whether a name announces a secret.
#[must_use]
pub fn names_a_secret(name: &str) -> bool {
    SECRET_NAME.as_ref().is_none_or(|pattern| pattern.is_match(name))
}

/// Whether an option's value must be kept out of backups, logs and statuses.
#[must_use]
pub fn is_secret(of: OptionOf<'_>, name: &str, value: &str) -> bool {
    let listed = |names: &[&str]| names.contains(&name);
    let known = match of {
        OptionOf::Wrapper => false,
        OptionOf::Server("postgres_fdw" | "dblink_fdw") => listed(LIBPQ) || listed(POSTGRES_FDW),
        OptionOf::Server("file_fdw") => listed(FILE_FDW),
        OptionOf::Server(_) => listed(ANY_SERVER),
        OptionOf::UserMapping => listed(USER_MAPPING),
        // They name what is on the other side; no list would know the names of every wrapper.
        OptionOf::Table => !names_a_secret(name),
        OptionOf::Connection => listed(LIBPQ) || name == "user",
    };
    !known || looks_secret(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_the_lists_are_secret() {
        let postgres = OptionOf::Server("postgres_fdw");
        assert!(!is_secret(postgres, "host", "db.internal"));
        assert!(!is_secret(postgres, "fetch_size", "500"));
        for name in ["password", "sslpassword", "options", "passfile", "Host", "host ", ""] {
            assert!(is_secret(postgres, name, "x"), "{name}");
        }
        assert!(is_secret(OptionOf::Server("odd wrapper"), "url", "x"));
        assert!(!is_secret(OptionOf::Server("odd wrapper"), "host", "x"));
        assert!(is_secret(OptionOf::Wrapper, "debug", "true"));
        assert!(!is_secret(OptionOf::UserMapping, "user", "app"));
        assert!(is_secret(OptionOf::UserMapping, "password", ""));
        assert!(is_secret(OptionOf::Connection, "password", "x"));
        assert!(!is_secret(OptionOf::Table, "table_name", "invoice"));
        assert!(is_secret(OptionOf::Table, "program", "curl -u a:b"));
    }

    #[test]
    fn a_value_that_carries_a_credential_is_secret_under_any_name() {
        let postgres = OptionOf::Server("postgres_fdw");
        assert!(is_secret(postgres, "dbname", "postgresql://u:p@h/db"));
        assert!(is_secret(postgres, "dbname", "dbname=x password = 'y'"));
        assert!(!is_secret(postgres, "dbname", "it's \\ \"odd\"; --"));
        assert!(!is_secret(postgres, "host", "/var/run/postgresql"));
    }
}
