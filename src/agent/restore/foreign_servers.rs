//! Step `foreign-servers`: connects through each rewritten foreign server, or says why that did not work. What is made
//! for the check is rolled back. A server that does not answer undoes nothing, and is never called ready.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::timeout;

use super::attempt::Attempt;
use crate::api::conditions::FOREIGN_SERVERS_READY;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::sqlstate;

/// Seconds that a foreign server has to accept the connection.
const CONNECT_SECONDS: u32 = 10;
/// Before PostgreSQL 16 a backend that waits for a connection cannot be interrupted; then the session is left behind.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mapping of a foreign server, and whether the restoring role can use it.
struct Mapping {
    /// `None` is PUBLIC.
    role: Option<String>,
    usable: bool,
}

/// What came of the checks.
#[derive(Default)]
struct Outcome {
    reached: Vec<String>,
    failed: Vec<String>,
    unchecked: Vec<String>,
    /// Rewritten servers through which no connection was tried.
    blind: usize,
}

/// Checks, and sets the condition `ForeignServersReady`.
pub(super) async fn run(attempt: &Attempt<'_>) -> Result<String, Refusal> {
    let mut outcome = Outcome::default();
    for change in attempt.steps.rewritten_servers() {
        attempt.check_stop()?;
        check_server(attempt, &change.name, &change.wrapper, &mut outcome).await?;
    }
    Ok(report(attempt, &outcome))
}

fn report(attempt: &Attempt<'_>, outcome: &Outcome) -> String {
    let Outcome {
        reached,
        failed,
        unchecked,
        blind,
    } = outcome;
    let mut parts = Vec::new();
    if !failed.is_empty() {
        parts.push(format!("No connection: {}", failed.join("; ")));
    }
    if !reached.is_empty() {
        parts.push(format!("Connected: {}", reached.join(", ")));
    }
    if !unchecked.is_empty() {
        parts.push(format!("Not checked: {}", unchecked.join("; ")));
    }
    let message = parts.join(". ");
    let reporter = &attempt.context.reporter;
    let (status, reason) = match (failed.is_empty(), *blind) {
        (false, _) => (Some(false), reasons::FOREIGN_SERVER_UNREACHABLE),
        (true, 0) => (Some(true), reasons::SUCCEEDED),
        (true, _) => (None, reasons::FOREIGN_SERVER_UNREACHABLE),
    };
    reporter.condition(FOREIGN_SERVERS_READY, status, reason, format!("{message}."));
    for failure in failed {
        reporter.warn(format!("No connection through a rewritten foreign server: {failure}."));
    }
    message
}

async fn check_server(
    attempt: &Attempt<'_>,
    server: &str,
    wrapper: &str,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    let session = attempt.target.connect().await?;
    let failed = |error: tokio_postgres::Error| {
        session.refusal(&error, "looking at the rewritten foreign servers", Some(server))
    };
    if !is_postgres_fdw(&session, server).await.map_err(failed)? {
        outcome.blind += 1;
        outcome.unchecked.push(format!(
            "{server:?}: connections of the wrapper {wrapper:?} cannot be tried"
        ));
        return Ok(());
    }
    let mappings = mappings(&session, server).await.map_err(failed)?;
    let mut tried = false;
    for Mapping { role, usable } in &mappings {
        let label = format!(
            "{server:?} as {}",
            role.as_deref().map_or("PUBLIC".into(), |role| format!("{role:?}"))
        );
        if !usable {
            outcome
                .unchecked
                .push(format!("{label}: the restoring role cannot use this mapping"));
            continue;
        }
        tried = true;
        // A session of its own: one that waits for a dead host is left behind.
        let session = attempt.target.connect().await?;
        match timeout(PATIENCE, connect(&session, server, role.as_deref())).await {
            Ok(Ok(())) => outcome.reached.push(label),
            Ok(Err(error)) => outcome
                .failed
                .push(format!("{label}: {}", sqlstate::text(&error).trim_end_matches('.'))),
            Err(_) => outcome
                .failed
                .push(format!("{label}: no answer within {} seconds", PATIENCE.as_secs())),
        }
    }
    if !tried {
        outcome.blind += 1;
        if mappings.is_empty() {
            outcome.unchecked.push(format!("{server:?}: it has no user mapping"));
        }
    }
    Ok(())
}

/// Whether the server's wrapper is that of the extension `postgres_fdw`, whatever its name.
async fn is_postgres_fdw(session: &Session, server: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw \
               JOIN pg_proc p ON p.oid = fdwhandler WHERE srvname = $1 AND proname = 'postgres_fdw_handler')";
    session.query_one(sql, &[&server]).await?.try_get(0)
}

async fn mappings(session: &Session, server: &str) -> Result<Vec<Mapping>, tokio_postgres::Error> {
    let membership = if session.server_major() >= 16 { "SET" } else { "MEMBER" };
    let sql = format!(
        "SELECT CASE umuser WHEN 0 THEN NULL ELSE usename::text END,
             CASE umuser WHEN 0 THEN NOT EXISTS (SELECT FROM pg_user_mappings o JOIN pg_roles r ON r.oid = o.umuser
                                                 WHERE o.srvname = m.srvname AND r.rolname = current_user)
             ELSE pg_has_role(umuser, '{membership}') END
         FROM pg_user_mappings m WHERE srvname = $1 ORDER BY umuser"
    );
    let rows = session.query(&sql, &[&server]).await?;
    rows.iter()
        .map(|row| {
            Ok(Mapping {
                role: row.try_get(0)?,
                usable: row.try_get(1)?,
            })
        })
        .collect()
}

/// Reads nothing from a foreign table that exists for the moment, as the role of the mapping.
async fn connect(session: &Session, server: &str, role: Option<&str>) -> Result<(), tokio_postgres::Error> {
    let quoted = identifier(server);
    let mut prepare = format!("BEGIN; SET LOCAL statement_timeout = '{}s';", PATIENCE.as_secs());
    if session.server_major() >= 17 && session.is_superuser().await? {
        // An event trigger of the restored database may veto the table.
        prepare.push_str("SET LOCAL event_triggers = off;");
    }
    let _ = write!(
        prepare,
        "CREATE FOREIGN TABLE pgrescue.reachability (nothing integer) SERVER {quoted} \
         OPTIONS (schema_name 'pg_catalog', table_name 'pg_class');"
    );
    session.batch_execute(&prepare).await?;
    limit_patience(session, server).await?;
    if let Some(role) = role {
        let role = identifier(role);
        session
            .batch_execute(&format!(
                "GRANT USAGE ON SCHEMA pgrescue TO {role}; GRANT SELECT ON pgrescue.reachability TO {role}; \
                 SET LOCAL ROLE {role}"
            ))
            .await?;
    }
    session
        .batch_execute("SELECT FROM pgrescue.reachability LIMIT 1")
        .await?;
    session.batch_execute("ROLLBACK").await
}

/// Gives the server a `connect_timeout` for the length of the transaction, where it has none and it may be changed.
async fn limit_patience(session: &Session, server: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_foreign_server, pg_options_to_table(srvoptions) \
                   WHERE srvname = $1 AND option_name = 'connect_timeout') \
               OR NOT (SELECT pg_has_role(srvowner, 'USAGE') FROM pg_foreign_server WHERE srvname = $1)";
    if session.query_one(sql, &[&server]).await?.try_get(0)? {
        return Ok(());
    }
    let seconds = literal(&CONNECT_SECONDS.to_string());
    session
        .batch_execute(&format!(
            "ALTER SERVER {} OPTIONS (ADD connect_timeout {seconds})",
            identifier(server)
        ))
        .await
}
