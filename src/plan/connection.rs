//! A validated connection. Secrets stand in it by name; the agent resolves them (`references`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::api::connection::{Connection, KeyRef, Tls, TlsMode, ValueSource};
use crate::api::reasons;

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

/// Parameters that have a field of their own in `connection`, and that field.
const FIELDS: &[(&str, &str)] = &[
    ("host", "host"),
    ("port", "port"),
    ("user", "user"),
    ("dbname", "database"),
    ("password", "passwordSecretRef"),
    ("passfile", "passwordSecretRef"),
    ("sslmode", "tls.mode"),
    ("sslrootcert", "tls.rootCertificate"),
    ("sslcert", "tls.clientCertificate"),
    ("sslkey", "tls.clientKey"),
];

/// Parameters that pgrescue itself sets or that have no meaning in its sessions.
const RESERVED: &[&str] = &[
    "client_encoding",
    "replication",
    "service",
    "servicefile",
    "sslpassword",
];

/// Validates a connection. `field` is its path in the manifest, such as `spec.connection`.
pub fn plan(connection: &Connection, field: &str) -> Result<ConnectionPlan, Refusal> {
    let Connection {
        secret_ref,
        host,
        port,
        user,
        database,
        password_secret_ref,
        tls,
        parameters,
    } = connection;
    for (name, value) in [("host", host), ("user", user), ("database", database)] {
        if let Some(value) = value {
            check_text(value, &format!("{field}.{name}"))?;
        }
    }
    if *port == Some(0) {
        return Err(invalid(&format!("{field}.port"), "is 0, which is no port")
            .hint("Give a port from 1 to 65535, or leave it out for 5432."));
    }
    check_parameters(parameters, field)?;
    let secret = secret_ref.as_ref().map(|secret| secret.name.clone());
    if let Some(secret) = &secret {
        check_text(secret, &format!("{field}.secretRef.name"))?;
    }
    let Tls {
        mode,
        root_certificate,
        client_certificate,
        client_key,
    } = tls.clone().unwrap_or_default();
    let tls_field = format!("{field}.tls");
    if client_certificate.is_some() != client_key.is_some() {
        return Err(invalid(
            &tls_field,
            "names one of clientCertificate and clientKey without the other",
        )
        .hint("Give both, or neither."));
    }
    let certificate = |source: Option<ValueSource>, name: &str| {
        source
            .map(|source| text_source(&source, &format!("{tls_field}.{name}")))
            .transpose()
    };
    Ok(ConnectionPlan {
        secret,
        host: host.clone(),
        port: *port,
        user: user.clone(),
        database: database.clone(),
        password: password_secret_ref
            .as_ref()
            .map(|key| key_ref(key, &format!("{field}.passwordSecretRef")))
            .transpose()?,
        tls_mode: mode,
        root_certificate: certificate(root_certificate, "rootCertificate")?,
        client_certificate: certificate(client_certificate, "clientCertificate")?,
        client_key: client_key
            .map(|source| key_ref(&source.secret_key_ref, &format!("{tls_field}.clientKey.secretKeyRef")))
            .transpose()?,
        parameters: parameters.clone(),
    })
}

/// Validates a text that comes from exactly one place.
pub(super) fn text_source(source: &ValueSource, field: &str) -> Result<TextSource, Refusal> {
    let ValueSource {
        inline,
        secret_key_ref,
        config_map_key_ref,
    } = source;
    match (inline, secret_key_ref, config_map_key_ref) {
        (Some(text), None, None) => Ok(TextSource::Inline(text.clone())),
        (None, Some(key), None) => Ok(TextSource::Secret(key_ref(key, &format!("{field}.secretKeyRef"))?)),
        (None, None, Some(key)) => Ok(TextSource::ConfigMap(key_ref(
            key,
            &format!("{field}.configMapKeyRef"),
        )?)),
        _ => Err(invalid(
            field,
            "must name exactly one of inline, secretKeyRef and configMapKeyRef",
        )),
    }
}

/// Validates a key of a Secret or a ConfigMap.
pub(super) fn key_ref(key: &KeyRef, field: &str) -> Result<KeyRef, Refusal> {
    check_text(&key.name, &format!("{field}.name"))?;
    check_text(&key.key, &format!("{field}.key"))?;
    Ok(key.clone())
}

fn check_parameters(parameters: &BTreeMap<String, String>, field: &str) -> Result<(), Refusal> {
    for (name, value) in parameters {
        let path = format!("{field}.parameters.{name}");
        if let Some((_, own)) = FIELDS.iter().find(|(parameter, _)| parameter == name) {
            return Err(invalid(&path, "has a field of its own").hint(format!("Use {field}.{own} instead.")));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(invalid(&path, "cannot be set").hint("Remove the parameter."));
        }
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            return Err(invalid(&path, "is not the name of a libpq parameter")
                .hint("The manual of libpq lists them: \"Parameter Key Words\"."));
        }
        if value.contains('\0') {
            return Err(invalid(&path, "contains a NUL character"));
        }
    }
    Ok(())
}

/// Refuses what PostgreSQL and Kubernetes cannot take as a name.
pub(super) fn check_text(text: &str, field: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(invalid(field, "is empty").hint("Give a value, or leave the field out."));
    }
    if text.contains('\0') {
        return Err(invalid(field, "contains a NUL character"));
    }
    Ok(())
}

/// A spec that contradicts itself or a rule, at the path `field`.
pub(super) fn invalid(field: &str, what: &str) -> Refusal {
    Refusal::permanent(reasons::INVALID_SPEC, format!("{field} {what}")).object(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        let connection: Connection = serde_saphyr::from_str(yaml).unwrap();
        plan(&connection, "spec.connection").unwrap_err().sentence()
    }

    #[test]
    fn the_sentences_of_a_refused_connection_help() {
        insta::assert_snapshot!(
            [
                refused("{host: ''}"),
                refused("{port: 0}"),
                refused("{parameters: {password: x}}"),
                refused("{parameters: {sslmode: require}}"),
                refused("{parameters: {client_encoding: LATIN1}}"),
                refused("{parameters: {'Bad Name': x}}"),
                refused("{secretRef: {name: ''}}"),
                refused("{passwordSecretRef: {name: a, key: ''}}"),
                refused("{tls: {clientCertificate: {inline: x}}}"),
                refused("{tls: {rootCertificate: {}}}"),
                refused("{tls: {rootCertificate: {inline: x, secretKeyRef: {name: a, key: b}}}}"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn a_whole_connection_is_taken_over() {
        let connection: Connection = serde_saphyr::from_str(
            "{secretRef: {name: db}, host: h, port: 5433, user: u, database: '*',
              passwordSecretRef: {name: p, key: k}, parameters: {connect_timeout: '10'},
              tls: {mode: verify-full, rootCertificate: {configMapKeyRef: {name: ca, key: ca.crt}},
                    clientCertificate: {inline: PEM}, clientKey: {secretKeyRef: {name: c, key: tls.key}}}}",
        )
        .unwrap();
        insta::assert_yaml_snapshot!(plan(&connection, "spec.connection").unwrap());
    }
}
