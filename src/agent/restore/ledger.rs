//! `pgrescue.runs` in the target database: which requests were begun and applied there. The note that a request was
//! applied is committed in the transaction that ends the restore, so the same request never runs twice.

use tokio_postgres::{Client, Transaction};

use crate::api::reasons;
use crate::plan::restore::RestorePlan;
use crate::plan::{Refusal, Run, RunKind};
use crate::store::manifest::{DatabaseManifest, RelationManifest};

/// Schema of the ledger. The archive's own ledger, of a source that was itself restored, is not restored into it.
pub(super) const SCHEMA: &str = "pgrescue";
/// Tables that a restore makes there: the ledger, and what notes how far one is.
pub(super) const TABLES: [&str; 5] = [
    "runs",
    "restore_progress",
    "since_crash",
    "loaded_chunks",
    "loaded_chunks_unlogged",
];

/// Whether a table is one of those.
pub(super) fn is_own(schema: &str, table: &str) -> bool {
    schema == SCHEMA && TABLES.contains(&table)
}

const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS pgrescue;
COMMENT ON SCHEMA pgrescue IS 'What pgrescue did to this database';
CREATE TABLE IF NOT EXISTS pgrescue.runs (
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    request_hash text NOT NULL,
    run text NOT NULL,
    attempt text NOT NULL,
    state text NOT NULL CHECK (state IN ('Started', 'Applied')),
    snapshot text NOT NULL,
    manifest_sha256 text NOT NULL,
    extensions_before text[] NOT NULL,
    bring_back text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    PRIMARY KEY (kind, namespace, name, request_hash)
);
COMMENT ON TABLE pgrescue.runs IS
    'One row for each request; the same request applied again finds its row and changes nothing'";

/// Columns that tell the ledger from a table of the same name.
const OWN_COLUMNS: [&str; 5] = ["kind", "namespace", "name", "request_hash", "run"];

/// Refuses a backup with a table of somebody else where the ledger has to be: it would be left out of the restore.
pub(super) fn refuse_another(database: &DatabaseManifest) -> Result<(), Refusal> {
    let is_other = |relation: &RelationManifest| {
        let has = |name: &str| relation.columns.iter().any(|column| column.name == name);
        // Columns are described at best effort.
        !relation.columns.is_empty() && !OWN_COLUMNS.into_iter().all(has)
    };
    let of_the_name = |relation: &&RelationManifest| relation.schema == SCHEMA && relation.name == "runs";
    if !database.relations.iter().filter(of_the_name).any(is_other) {
        return Ok(());
    }
    let message = format!(
        "The backup holds a table {SCHEMA}.runs that is not pgrescue's, and pgrescue needs that name in the target to remember what was restored."
    );
    Err(Refusal::permanent(reasons::NAME_TAKEN, message)
        .object(format!("{SCHEMA}.runs"))
        .hint(
            "Rename the table in the source database and make another backup; or restore archive.dump with pg_restore.",
        ))
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LedgerRow {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub request_hash: String,
    pub run: String,
    pub attempt: String,
    pub applied_at: Option<String>,
    /// Extensions that the database had before the run.
    pub extensions_before: Vec<String>,
    /// Statements that bring back what the run changes of things that were there.
    pub bring_back: Vec<String>,
}

impl LedgerRow {
    /// Whether the row says that this request was applied.
    pub(super) fn applies(&self, plan: &RestorePlan) -> bool {
        self.applied_at.is_some()
            && self.kind == kind(&plan.run)
            && self.namespace == plan.run.namespace
            && self.name == plan.run.name
            && self.request_hash == plan.request_hash
    }
}

const fn kind(run: &Run) -> &'static str {
    match run.kind {
        RunKind::PgBackup => "PgBackup",
        RunKind::PgRestore => "PgRestore",
    }
}

/// Every row; none where there is no ledger.
pub(super) async fn read(client: &Client) -> Result<Vec<LedgerRow>, tokio_postgres::Error> {
    let there = client
        .query_one("SELECT to_regclass('pgrescue.runs') IS NOT NULL", &[])
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT kind, namespace, name, request_hash, run, attempt, \
                   CASE state WHEN 'Applied' THEN to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') END, \
                   extensions_before, bring_back FROM pgrescue.runs";
    let rows = client.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(LedgerRow {
                kind: row.try_get(0)?,
                namespace: row.try_get(1)?,
                name: row.try_get(2)?,
                request_hash: row.try_get(3)?,
                run: row.try_get(4)?,
                attempt: row.try_get(5)?,
                applied_at: row.try_get(6)?,
                extensions_before: row.try_get(7)?,
                bring_back: row.try_get(8)?,
            })
        })
        .collect()
}

/// Notes, before the first change, that the run begins to fill the database. A row that an earlier attempt left is
/// taken over with its list of extensions.
pub(super) async fn begin(
    transaction: &Transaction<'_>,
    plan: &RestorePlan,
    attempt: &str,
    snapshot: &str,
    manifest_sha256: &str,
    extensions_before: &[String],
    bring_back: &[String],
) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(CREATE).await?;
    let Run {
        namespace, name, uid, ..
    } = &plan.run;
    let sql = "INSERT INTO pgrescue.runs (kind, namespace, name, request_hash, run, attempt, state, snapshot, \
                   manifest_sha256, extensions_before, bring_back) \
               VALUES ($1, $2, $3, $4, $5, $6, 'Started', $7, $8, $9, $10) \
               ON CONFLICT (kind, namespace, name, request_hash) DO UPDATE SET attempt = excluded.attempt \
               WHERE runs.state = 'Started' AND runs.run = excluded.run";
    transaction
        .execute(
            sql,
            &[
                &kind(&plan.run),
                namespace,
                name,
                &plan.request_hash,
                uid,
                &attempt,
                &snapshot,
                &manifest_sha256,
                &extensions_before,
                &bring_back,
            ],
        )
        .await?;
    Ok(())
}

/// Notes that the request was applied. Returns whether the note was this attempt's to write.
pub(super) async fn finish(
    transaction: &Transaction<'_>,
    plan: &RestorePlan,
    attempt: &str,
) -> Result<bool, tokio_postgres::Error> {
    let Run {
        namespace, name, uid, ..
    } = &plan.run;
    let sql = "UPDATE pgrescue.runs SET state = 'Applied', applied_at = now() \
               WHERE kind = $1 AND namespace = $2 AND name = $3 AND request_hash = $4 AND run = $5 AND attempt = $6 \
                 AND state = 'Started'";
    let changed = transaction
        .execute(
            sql,
            &[&kind(&plan.run), namespace, name, &plan.request_hash, uid, &attempt],
        )
        .await?;
    Ok(changed == 1)
}

/// Forgets a run that was undone, and the ledger where nothing else stands in it.
pub(super) async fn forget(client: &Client, run: &Run) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "DELETE FROM pgrescue.runs WHERE run = $1 AND state = 'Started'",
            &[&run.uid],
        )
        .await?;
    client.batch_execute(super::resume::DROP).await?;
    let left = client.query_one("SELECT count(*) FROM pgrescue.runs", &[]).await?;
    if left.try_get::<_, i64>(0)? == 0 {
        client
            .batch_execute("DROP TABLE pgrescue.runs; DROP SCHEMA IF EXISTS pgrescue")
            .await?;
    }
    Ok(())
}
