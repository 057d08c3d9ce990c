//! A validated connection. Secrets stand in it by name; the agent resolves them (`agent::references`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::connection::{KeyRef, TlsMode};

/// Where a text comes from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum TextSource {
    /// The text itself.
    Inline(String),
    /// A key of a Secret.
    Secret(KeyRef),
    /// A key of a ConfigMap.
    ConfigMap(KeyRef),
}

/// How a server is reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionPlan {
    /// Secret with `host`, `port`, `user` or `username`, `password`, `dbname`, `uri`.
    pub secret: Option<String>,
    /// Inline host; wins over the Secret.
    pub host: Option<String>,
    /// Inline port; wins over the Secret.
    pub port: Option<u16>,
    /// Inline user; wins over the Secret.
    pub user: Option<String>,
    /// Inline database; wins over the Secret.
    pub database: Option<String>,
    /// Password from a Secret's key; wins over `secret`.
    pub password: Option<KeyRef>,
    /// `None`: what the `uri` says, else `prefer`.
    pub tls_mode: Option<TlsMode>,
    /// PEM of the authorities.
    pub root_certificate: Option<TextSource>,
    /// PEM of the client's certificate chain.
    pub client_certificate: Option<TextSource>,
    /// PEM of the client's private key.
    pub client_key: Option<KeyRef>,
    /// Other libpq parameters.
    pub parameters: BTreeMap<String, String>,
}
