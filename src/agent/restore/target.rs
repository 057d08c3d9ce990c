//! The target's server: how this attempt reaches it, and what stands there. Reads only.

use std::collections::BTreeMap;

use tokio_postgres::error::SqlState;

use super::mark;
use crate::agent::Context;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore::RestorePlan;
use crate::plan::restore_findings::{Locale, Server};
use crate::postgres::connection::{ConnectionSettings, Session};
use crate::postgres::quote::literal;
use crate::postgres::sqlstate;

/// Databases that every server has, in the order in which libpq's programs try them.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Has autovacuum, which comes to tables that were just filled, give way at once to a session that waits for its lock;
/// by default that takes a second for each table (`ProcSleep` in `proc.c`, after `deadlock_timeout`, which only superusers
/// may set).
pub(super) const PASS_AUTOVACUUM: &str = "
SELECT pg_catalog.set_config('deadlock_timeout', '50ms', false) FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper";

/// The target's server, as this attempt reaches it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    settings: ConnectionSettings,
    /// Name of the target database.
    pub database: String,
    /// The database that sessions outside the target database connect to.
    maintenance: String,
}

impl Target {
    /// Connects for the first time, to whichever database beside the target lets the role in; all later sessions go to
    /// the same instance. The session is returned for use.
    pub(super) async fn open(
        plan: &RestorePlan,
        context: &Context,
        database: &str,
        attempt: &str,
    ) -> Result<(Self, Session), Refusal> {
        let settings = ConnectionSettings::resolve(&plan.target, &*context.references).await?;
        Self::of_settings(&settings, &mark::application_name(&plan.run, attempt), database).await
    }

    /// The same with settings that are known.
    pub(super) async fn of_settings(
        settings: &ConnectionSettings,
        application_name: &str,
        database: &str,
    ) -> Result<(Self, Session), Refusal> {
        let settings = settings
            .with_application_name(application_name)
            // A database or a role may have been set to read only; the restore has to write.
            .with_setting("default_transaction_read_only", "off")
            .with_setting("statement_timeout", "0")
            .with_setting("lock_timeout", "0")
            .with_setting("idle_in_transaction_session_timeout", "0");
        let named = settings
            .database()
            .filter(|named| *named != database)
            .map(str::to_owned);
        let mut first_error = None;
        let candidates = named.iter().map(String::as_str).chain(MAINTENANCE);
        for candidate in candidates.filter(|candidate| *candidate != database) {
            match unhurried(&settings.with_database(candidate)).await {
                Ok(session) => {
                    let target = Self {
                        settings: session.settings().clone(),
                        database: database.to_owned(),
                        maintenance: candidate.to_owned(),
                    };
                    return Ok((target, session));
                }
                Err(refusal) => {
                    // Another database helps only where this one is the trouble.
                    let elsewhere = matches!(
                        refusal.reason.as_str(),
                        reasons::DATABASE_MISSING | reasons::PERMISSION_DENIED | reasons::AUTHENTICATION_FAILED
                    );
                    let first = first_error.get_or_insert_with(|| refusal.clone());
                    if !elsewhere {
                        return Err(first.clone());
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| {
            Refusal::permanent(reasons::INTERNAL, "The target server has no database to connect to.")
        }))
    }

    /// Settings that lead to the target database, for the client programs.
    pub(super) fn settings(&self) -> ConnectionSettings {
        self.settings.with_database(&self.database)
    }

    /// A session outside the target database.
    pub(super) async fn maintenance(&self) -> Result<Session, Refusal> {
        unhurried(&self.settings.with_database(&self.maintenance)).await
    }

    /// A session in the target database.
    pub(super) async fn connect(&self) -> Result<Session, Refusal> {
        unhurried(&self.settings()).await
    }

    /// A session in another database of the server.
    pub(super) async fn connect_to(&self, database: &str) -> Result<Session, Refusal> {
        unhurried(&self.settings.with_database(database)).await
    }
}

/// A session without the time limits that not every version knows, and that so cannot be settings of the connection.
/// Some sessions are idle for as long as the rows take.
async fn unhurried(settings: &ConnectionSettings) -> Result<Session, Refusal> {
    let session = settings.connect().await?;
    let sql = match session.server_major() {
        ..14 => return Ok(session),
        14..17 => "SET idle_session_timeout = 0",
        17.. => "SET idle_session_timeout = 0; SET transaction_timeout = 0",
    };
    let set = session.batch_execute(sql).await;
    set.map_err(|error| session.refusal(&error, "preparing the session", None))?;
    Ok(session)
}

const SERVER: &str = "
SELECT pg_is_in_recovery(), current_user::text, r.rolsuper, r.rolcreatedb, r.rolcreaterole,
    r.rolsuper OR (current_setting('server_version_num')::int >= 160000 AND EXISTS (
        SELECT FROM pg_roles s WHERE s.rolname = 'pg_create_subscription' AND pg_has_role(s.oid, 'USAGE')))
FROM pg_roles r WHERE r.rolname = current_user";

/// Reads what decides over a restore. Whether the client programs fit is asked by the caller.
pub(super) async fn find_server(
    session: &Session,
    client: Result<String, Refusal>,
    pooled: bool,
    locale: &Locale,
) -> Result<Server, Refusal> {
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "reading the target server's catalogs", None);
    let row = session.query_one(SERVER, &[]).await.map_err(failed)?;
    let major = session.server_major();
    let in_recovery: bool = row.get(0);
    // From 16 on, membership alone does not let one give objects away: it takes the SET option.
    let membership = if major >= 16 { "SET" } else { "MEMBER" };
    let roles = session
        .query(
            &format!("SELECT rolname::text, pg_has_role(oid, '{membership}') FROM pg_roles"),
            &[],
        )
        .await
        .map_err(failed)?;
    let tablespaces = session
        .query("SELECT spcname::text FROM pg_tablespace ORDER BY 1", &[])
        .await
        .map_err(failed)?;
    let extensions = session
        .query("SELECT name::text, default_version FROM pg_available_extensions", &[])
        .await
        .map_err(failed)?;
    let locale_refusal = if in_recovery || pooled {
        None
    } else {
        locale_refusal(session, locale).await?
    };
    Ok(Server {
        major,
        version: session.server_version().to_owned(),
        client,
        in_recovery,
        pooled,
        role: row.get(1),
        superuser: row.get(2),
        create_database: row.get(3),
        create_role: row.get(4),
        create_subscription: row.get(5),
        roles: roles.iter().map(|row| (row.get(0), row.get(1))).collect(),
        tablespaces: tablespaces.iter().map(|row| row.get(0)).collect(),
        extensions: extensions
            .iter()
            .map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default()))
            .collect::<BTreeMap<_, _>>(),
        locale_refusal,
    })
}

/// Why the server cannot make a database with this locale, where that can be known beforehand: a collation of the same
/// provider and locale is made and rolled back. `CREATE DATABASE` has the last word.
async fn locale_refusal(session: &Session, locale: &Locale) -> Result<Option<String>, Refusal> {
    let failed = |error: &tokio_postgres::Error| session.refusal(error, "trying the locale of the backup", None);
    let options = if let ("icu" | "builtin", Some(name)) = (locale.provider.as_str(), &locale.locale) {
        format!("PROVIDER = {}, LOCALE = {}", locale.provider, literal(name))
    } else {
        let row = session
            .query_one(
                "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()",
                &[],
            )
            .await
            .map_err(|error| failed(&error))?;
        // A libc collation is held against the encoding of the database that it is made in.
        if row.get::<_, String>(0) != locale.encoding {
            return Ok(None);
        }
        format!(
            "PROVIDER = libc, LC_COLLATE = {}, LC_CTYPE = {}",
            literal(&locale.collate),
            literal(&locale.ctype)
        )
    };
    session.batch_execute("BEGIN").await.map_err(|error| failed(&error))?;
    let tried = session
        .batch_execute(&format!("CREATE COLLATION pg_temp.pgrescue_trial ({options})"))
        .await;
    session
        .batch_execute("ROLLBACK")
        .await
        .map_err(|error| failed(&error))?;
    match tried {
        Ok(()) => Ok(None),
        // Without the right to temporary objects it cannot be known.
        Err(error) if sqlstate::is(&error, &SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(error) if error.as_db_error().is_some() => {
            Ok(Some(sqlstate::text(&error).trim_end_matches('.').to_owned()))
        }
        Err(error) => Err(failed(&error)),
    }
}
