//! The connection parameters of libpq that have no field of their own (manual, "Parameter Key Words").

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::conninfo::Parameters;
use super::error::ConnectionError;

/// Values of `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::postgres) enum SessionKind {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// Parameters that pgrescue's own sessions and the client programs both honour.
#[derive(Clone, Debug, Default)]
pub(super) struct OtherParameters {
    pub(super) wanted: SessionKind,
    pub(super) random_order: bool,
    application_name: Option<String>,
    options: Option<String>,
    keepalives: Option<bool>,
    keepalives_idle: Option<u64>,
    keepalives_interval: Option<u64>,
    keepalives_count: Option<u32>,
    tcp_user_timeout_milliseconds: Option<u64>,
    channel_binding: Option<ChannelBinding>,
}

/// Name that sessions show in `pg_stat_activity`.
const APPLICATION_NAME: &str = "pgrescue";

/// Parameters that are refused, and what to do in their place.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["service", "servicefile", "passfile"],
        "it names a file; give the connection in the manifest and its Secret",
    ),
    (&["sslpassword"], "a client key must be stored without passphrase"),
    (&["sslcrl", "sslcrldir"], "revocation lists are not supported"),
    (
        &["krbsrvname", "gsslib", "gssdelegation", "requirepeer", "require_auth"],
        "Kerberos, peer and chosen authentication methods are not supported; use a password or a client certificate",
    ),
    (&["replication"], "a backup runs in ordinary sessions"),
    (&["client_encoding"], "pgrescue sets the encoding itself"),
];

impl SessionKind {
    /// What a server is asked: whether it is in recovery, and whether it takes no writes.
    pub(in crate::postgres) const QUESTION: &str =
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

    /// Whether a server that answers so is of this kind.
    pub(in crate::postgres) const fn is(self, in_recovery: bool, read_only: bool) -> bool {
        match self {
            Self::Any | Self::PreferStandby => true,
            Self::ReadWrite => !read_only,
            Self::ReadOnly => read_only,
            Self::Primary => !in_recovery,
            Self::Standby => in_recovery,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

impl OtherParameters {
    /// Takes what is left when the parameters with fields of their own are gone.
    pub(super) fn take(mut rest: Parameters) -> Result<Self, ConnectionError> {
        let mut text = |name: &str| rest.remove(name).filter(|value| !value.is_empty());
        let others = Self {
            wanted: one_of(
                text("target_session_attrs"),
                "target_session_attrs",
                &[
                    ("any", SessionKind::Any),
                    ("read-write", SessionKind::ReadWrite),
                    ("read-only", SessionKind::ReadOnly),
                    ("primary", SessionKind::Primary),
                    ("standby", SessionKind::Standby),
                    ("prefer-standby", SessionKind::PreferStandby),
                ],
            )?
            .unwrap_or_default(),
            random_order: one_of(
                text("load_balance_hosts"),
                "load_balance_hosts",
                &[("disable", false), ("random", true)],
            )?
            .unwrap_or_default(),
            application_name: {
                let fallback = text("fallback_application_name");
                text("application_name").or(fallback)
            },
            options: text("options"),
            keepalives: one_of(text("keepalives"), "keepalives", &[("0", false), ("1", true)])?,
            keepalives_idle: number(text("keepalives_idle"), "keepalives_idle")?,
            keepalives_interval: number(text("keepalives_interval"), "keepalives_interval")?,
            keepalives_count: number(text("keepalives_count"), "keepalives_count")?,
            tcp_user_timeout_milliseconds: number(text("tcp_user_timeout"), "tcp_user_timeout")?,
            channel_binding: one_of(
                text("channel_binding"),
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
            )?,
        };
        // Without Kerberos these two change nothing; sslcompression has had no effect since PostgreSQL 14.
        one_of(text("gssencmode"), "gssencmode", &[("disable", ()), ("prefer", ())])?;
        one_of(text("sslcertmode"), "sslcertmode", &[("allow", ())])?;
        text("sslcompression");
        match rest.into_iter().find(|(_, value)| !value.is_empty()) {
            None => Ok(others),
            Some((name, _)) => {
                let why = REFUSED
                    .iter()
                    .find(|(names, _)| names.contains(&name.as_str()))
                    .map_or("pgrescue does not know it", |(_, why)| why);
                Err(ConnectionError::Parameter { name, why })
            }
        }
    }

    pub(super) fn set_application_name(&mut self, name: &str) {
        self.application_name = Some(name.to_owned());
    }

    /// Appends `-c name=value`; later ones win (manual, "options"). A space or a backslash in a value is escaped.
    pub(super) fn add_option(&mut self, name: &str, value: &str) {
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        let option = format!("-c {name}={value}");
        self.options = Some(match self.options.take() {
            Some(options) => format!("{options} {option}"),
            None => option,
        });
    }

    /// For a session of pgrescue.
    pub(super) fn apply(&self, config: &mut Config) {
        config.application_name(self.application_name.as_deref().unwrap_or(APPLICATION_NAME));
        if let Some(options) = &self.options {
            config.options(options);
        }
        if let Some(keepalives) = self.keepalives {
            config.keepalives(keepalives);
        }
        if let Some(seconds) = self.keepalives_idle {
            config.keepalives_idle(Duration::from_secs(seconds));
        }
        if let Some(seconds) = self.keepalives_interval {
            config.keepalives_interval(Duration::from_secs(seconds));
        }
        if let Some(count) = self.keepalives_count {
            config.keepalives_retries(count);
        }
        if let Some(milliseconds) = self.tcp_user_timeout_milliseconds {
            config.tcp_user_timeout(Duration::from_millis(milliseconds));
        }
        if let Some(channel_binding) = self.channel_binding {
            config.channel_binding(channel_binding);
        }
    }

    /// For a client program. `load_balance_hosts` stays here: a program follows the session that chose the host, and
    /// libpq before 16 does not know the word.
    pub(super) fn for_programs(&self) -> BTreeMap<String, String> {
        let Self {
            wanted,
            random_order: _,
            application_name,
            options,
            keepalives,
            keepalives_idle,
            keepalives_interval,
            keepalives_count,
            tcp_user_timeout_milliseconds,
            channel_binding,
        } = self;
        let application_name = application_name.as_deref().unwrap_or(APPLICATION_NAME);
        let mut parameters = BTreeMap::from([
            ("application_name".to_owned(), application_name.to_owned()),
            ("gssencmode".to_owned(), "disable".to_owned()),
        ]);
        let mut set = |name: &str, value: Option<String>| {
            parameters.extend(value.map(|value| (name.to_owned(), value)));
        };
        set(
            "target_session_attrs",
            (*wanted != SessionKind::Any).then(|| wanted.name().to_owned()),
        );
        set("options", options.clone());
        set("keepalives", keepalives.map(|on| u8::from(on).to_string()));
        set("keepalives_idle", keepalives_idle.map(|seconds| seconds.to_string()));
        set(
            "keepalives_interval",
            keepalives_interval.map(|seconds| seconds.to_string()),
        );
        set("keepalives_count", keepalives_count.map(|count| count.to_string()));
        set(
            "tcp_user_timeout",
            tcp_user_timeout_milliseconds.map(|milliseconds| milliseconds.to_string()),
        );
        let binding = channel_binding.map(|binding| match binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Require => "require",
            _ => "prefer",
        });
        set("channel_binding", binding.map(str::to_owned));
        parameters
    }
}

/// A value out of a list.
pub(super) fn one_of<T: Copy>(
    value: Option<String>,
    name: &str,
    known: &[(&'static str, T)],
) -> Result<Option<T>, ConnectionError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match known.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => Err(ConnectionError::Value {
            name: name.to_owned(),
            expected: format!(
                "it may be {}",
                known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
            ),
            value,
        }),
    }
}

/// A number of seconds, milliseconds or times.
pub(super) fn number<T: FromStr>(value: Option<String>, name: &str) -> Result<Option<T>, ConnectionError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ConnectionError::Value {
            name: name.to_owned(),
            value,
            expected: "it must be a whole number, not negative".to_owned(),
        }),
    }
}
