//! Transaction poolers and load balancers in front of a server: an exported snapshot is local to one instance, and a
//! session's settings do not last behind a pooler that hands the server's sessions around.

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::connection::Session;
use super::quote;
use crate::api::reasons;
use crate::plan::Refusal;

/// A setting without meaning to the server; a pooler that changes servers between transactions loses it.
const MARK: &str = "pgrescue.session";

/// A pooler with several idle server processes may happen to give each session its own once, but not each time.
const ROUNDS: usize = 4;

/// `Some` where the session does not stay with one server process, or a second session reaches another instance.
/// Opens one more session. The session must not be in a transaction, and is not after.
pub async fn detect(session: &Session) -> Result<Option<Refusal>, Refusal> {
    let other = session.settings().connect().await?;
    let failed = |error: &tokio_postgres::Error| {
        session.refusal(error, "checking for a connection pooler in front of the server", None)
    };
    for _ in 0..ROUNDS {
        if server_is_shared(session, &other)
            .await
            .map_err(|error| failed(&error))?
        {
            return Ok(Some(pooled(session)));
        }
    }
    snapshot_is_shared(session, &other).await
}

/// Whether the server process of `session` is handed to another session between transactions.
async fn server_is_shared(session: &Session, other: &Session) -> Result<bool, tokio_postgres::Error> {
    let process = mark(session).await?;
    other.batch_execute("BEGIN").await?;
    // A pooler gives this transaction the server process that the first session has just left.
    let seen_by_other = identity(other).await?;
    let seen_again = identity(session).await?;
    other.batch_execute("COMMIT").await?;
    let marked = process.mark.is_some();
    session.batch_execute(&format!("RESET {MARK}")).await?;
    let shared = seen_by_other.process == process.process || (marked && seen_by_other.mark == process.mark);
    Ok(shared || seen_again != process)
}

#[derive(PartialEq, Eq)]
struct Identity {
    process: i32,
    mark: Option<String>,
}

async fn mark(session: &Session) -> Result<Identity, tokio_postgres::Error> {
    let sql = format!(
        "SELECT pg_backend_pid(), set_config({}, md5(random()::text || clock_timestamp()::text), false)",
        quote::literal(MARK)
    );
    ask(session, &sql).await
}

async fn identity(session: &Session) -> Result<Identity, tokio_postgres::Error> {
    let sql = format!(
        "SELECT pg_backend_pid(), nullif(current_setting({}, true), '')",
        quote::literal(MARK)
    );
    ask(session, &sql).await
}

/// As a simple query: a prepared statement is closed behind the answer, and the pooler may still be busy with that when
/// the other session begins.
async fn ask(session: &Session, sql: &str) -> Result<Identity, tokio_postgres::Error> {
    let messages = session.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(Identity {
        process: row.and_then(|row| row.get(0)?.parse().ok()).unwrap_or_default(),
        mark: row.and_then(|row| row.get(1).map(str::to_owned)),
    })
}

/// Whether both sessions are on one instance.
async fn snapshot_is_shared(session: &Session, other: &Session) -> Result<Option<Refusal>, Refusal> {
    let failed = |error: &tokio_postgres::Error| session.refusal(error, "exporting a snapshot", None);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session.batch_execute(begin).await.map_err(|error| failed(&error))?;
    let result = async {
        let row = session.query_one("SELECT pg_export_snapshot()", &[]).await?;
        let snapshot: String = row.try_get(0)?;
        other.batch_execute(begin).await?;
        let sql = format!("SET TRANSACTION SNAPSHOT {}", quote::literal(&snapshot));
        other.batch_execute(&sql).await
    }
    .await;
    session
        .batch_execute("ROLLBACK")
        .await
        .map_err(|error| failed(&error))?;
    match result {
        Ok(()) => Ok(None),
        // PostgreSQL says both of a snapshot that it does not have (12 to 18).
        Err(error)
            if [
                Some(&SqlState::INVALID_PARAMETER_VALUE),
                Some(&SqlState::UNDEFINED_OBJECT),
            ]
            .contains(&error.code()) =>
        {
            Ok(Some(balanced(session)))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn pooled(session: &Session) -> Refusal {
    let location = session.settings().location();
    Refusal::permanent(
        reasons::POOLER_IN_FRONT,
        format!("{location} is a connection pooler that gives a server session to another client after each transaction: neither session settings nor exported snapshots hold."),
    )
    .object(location)
    .hint("Connect to PostgreSQL itself (for CloudNativePG the Service <cluster>-rw, not the pooler), or set pool_mode = session for this user.")
}

fn balanced(session: &Session) -> Refusal {
    let location = session.settings().location();
    Refusal::permanent(
        reasons::POOLER_IN_FRONT,
        format!("Two connections to {location} reached different instances: a snapshot that one exports is unknown to the other."),
    )
    .object(location)
    .hint("Connect to one instance, such as the primary or one named replica, not through a load balancer.")
}
