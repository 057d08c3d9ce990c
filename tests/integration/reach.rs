//! How the tests reach a server by way of the product: plans and Secrets as a manifest would give them.

use pgrescue::plan::connection::{ConnectionPlan, TextSource};
use pgrescue::postgres::connection::{ConnectionError, ConnectionSettings, Session};
use pgrescue::postgres::wire::WireSession;
use pgrescue::references::manifests::ManifestReferences;
use serde_json::json;

use crate::parts::{Certificates, PASSWORD, PostgresServer, SUPERUSER};

/// Secrets by name, each with its keys.
pub fn secrets(secrets: &[(&str, &[(&str, &str)])]) -> ManifestReferences {
    let mut references = ManifestReferences::default();
    for (name, keys) in secrets {
        let keys: serde_json::Map<_, _> = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys});
        assert!(references.add(&manifest).expect("a Secret"));
    }
    references
}

/// A Secret `db` as an operator writes it, and `tls` with the client's certificate and key.
pub fn secrets_of(server: &PostgresServer, database: &str) -> ManifestReferences {
    let certificates = Certificates::of_this_process();
    secrets(&[
        (
            "db",
            &[
                ("host", "127.0.0.1"),
                ("port", &server.port.to_string()),
                ("username", SUPERUSER),
                ("password", PASSWORD),
                ("dbname", database),
            ],
        ),
        (
            "tls",
            &[("tls.crt", &certificates.client), ("tls.key", &certificates.client_key)],
        ),
    ])
}

/// A plan that names the Secret `db`, with TLS where the server asks for it.
pub fn plan(server: &PostgresServer) -> ConnectionPlan {
    let mut plan = ConnectionPlan {
        secret: Some("db".into()),
        ..ConnectionPlan::default()
    };
    if server.data_folder().join("server.crt").exists() {
        let certificates = Certificates::of_this_process();
        plan.root_certificate = Some(TextSource::Inline(certificates.root.clone()));
        plan.client_certificate = Some(TextSource::Inline(certificates.client.clone()));
        plan.client_key = Some(key("tls", "tls.key"));
    }
    plan
}

/// A key of a Secret.
pub fn key(name: &str, key: &str) -> pgrescue::api::connection::KeyRef {
    pgrescue::api::connection::KeyRef {
        name: name.into(),
        key: key.into(),
    }
}

/// Settings that lead to a database of a server.
pub async fn settings(server: &PostgresServer, database: &str) -> ConnectionSettings {
    ConnectionSettings::resolve(&plan(server), &secrets_of(server, database))
        .await
        .expect("the plan is sound")
}

/// A session in a database of a server.
pub async fn session(server: &PostgresServer, database: &str) -> Session {
    settings(server, database)
        .await
        .connect()
        .await
        .expect("the server accepts connections")
}

/// A session over the protocol itself in a database of a server.
pub async fn wire_session(server: &PostgresServer, database: &str) -> WireSession {
    WireSession::connect(&settings(server, database).await)
        .await
        .expect("the server accepts connections")
}

/// Resolves and connects.
pub async fn connect(plan: &ConnectionPlan, references: &ManifestReferences) -> Result<Session, ConnectionError> {
    ConnectionSettings::resolve(plan, references).await?.connect().await
}
