//! Who stands in the way of a backup's locks.

use std::fmt;

use tokio_postgres::Client;

/// A session that changes, or waits to change, the definition of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocker {
    /// The table, as `regclass` writes it.
    pub relation: String,
    pub process: i32,
    /// Whether it holds the lock; otherwise it waits for it, and whoever comes later waits behind it.
    pub holds: bool,
    pub user: String,
    pub application: String,
}

/// Its statement is left out: it may hold a password.
impl fmt::Display for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relation,
            process,
            holds,
            user,
            application,
        } = self;
        let doing = if *holds { "holds" } else { "waits for" };
        write!(formatter, "process {process} of role {user:?}")?;
        if !application.is_empty() {
            write!(formatter, " (application {application:?})")?;
        }
        write!(formatter, " {doing} an exclusive lock on {relation}")
    }
}

const BLOCKERS: &str = "
SELECT l.relation::regclass::text, l.pid, l.granted, coalesce(a.usename::text, ''), coalesce(a.application_name, '')
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.relation = ANY ($1)
ORDER BY l.granted DESC, l.pid LIMIT 1";

/// The first session with an exclusive lock, or a wish for one, on one of these relations.
pub(super) async fn find(client: &Client, relations: &[u32]) -> Result<Option<Blocker>, tokio_postgres::Error> {
    let row = client.query_opt(BLOCKERS, &[&relations]).await?;
    let read = |row: tokio_postgres::Row| {
        Ok(Blocker {
            relation: row.try_get(0)?,
            process: row.try_get(1)?,
            holds: row.try_get(2)?,
            user: row.try_get(3)?,
            application: row.try_get(4)?,
        })
    };
    row.map(read).transpose()
}

/// Sessions of this role in this database that began after `$1` (seconds since 1970) and have waited for more than `$2`
/// seconds for a lock as pg_dump takes it; a change of definitions, which waits for the exporter, wants another one.
/// They have the exporter's application name: an application may log in as the same role, and whom it waits for is its
/// own affair. The cached copy of a transaction's activity is thrown away first.
const STUCK: &str = "
SELECT w.pid, coalesce(b.pid, 0), coalesce(b.usename::text, ''), coalesce(b.application_name, '')
FROM (SELECT pg_stat_clear_snapshot()) c, pg_stat_activity w
    LEFT JOIN LATERAL (SELECT a.pid, a.usename, a.application_name FROM pg_stat_activity a
        WHERE a.pid = ANY (pg_blocking_pids(w.pid)) ORDER BY a.pid LIMIT 1) b ON true
WHERE w.datname = current_database() AND w.usename = current_user AND w.pid <> pg_backend_pid()
    AND w.application_name = current_setting('application_name')
    AND w.wait_event_type = 'Lock' AND w.backend_start >= to_timestamp($1)
    AND clock_timestamp() - w.state_change > $2 * interval '1 second'
    AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = w.pid AND NOT l.granted AND l.mode = 'AccessShareLock')
LIMIT 1";

/// A session of this dump, younger than `since`, that has waited for a lock for more than `seconds`, and for whom.
pub(super) async fn find_stuck(
    client: &Client,
    since: f64,
    seconds: f64,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_opt(STUCK, &[&since, &seconds]).await?;
    let read = |row: tokio_postgres::Row| {
        let (process, user, application): (i32, String, String) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        Ok(format!(
            "process {process} of role {user:?} (application {application:?})"
        ))
    };
    row.map(read).transpose()
}
