//! What stands under the name of the target database: nothing, an empty database, what this run or another one began,
//! what this request made before, or something of a user. Reads only.

use super::ledger::{self, LedgerRow};
use super::mark::{self, Mark};
use super::objects;
use super::target::Target;
use crate::plan::Refusal;
use crate::plan::restore::RestorePlan;
use crate::plan::restore_findings::{DatabaseState, EmptyDatabase, Locale};
use crate::postgres::connection::Session;

/// Objects that a refusal names; the others are counted.
const OBJECTS_NAMED: usize = 10;

/// The database as the shared catalogs have it.
#[derive(Clone, Debug)]
pub(super) struct DatabaseRow {
    /// Whether it accepts connections. A DROP DATABASE that was cut short leaves one that does not
    /// (`datconnlimit` -2).
    pub connectable: bool,
    pub owned: bool,
    pub may_create: bool,
    pub mark: Option<Mark>,
    locale: Locale,
}

/// Reads the database's row; `None` where there is none.
pub(super) async fn find_row(session: &Session, database: &str) -> Result<Option<DatabaseRow>, Refusal> {
    let failed =
        |error: tokio_postgres::Error| session.refusal(&error, "looking for the target database", Some(database));
    // Names of columns changed: daticulocale of 15 and 16 is datlocale from 17 on.
    let (provider, locale, rules) = match session.server_major() {
        ..=14 => ("'c'", "NULL::text", "NULL::text"),
        15 => ("datlocprovider", "daticulocale::text", "NULL::text"),
        16 => ("datlocprovider", "daticulocale::text", "daticurules::text"),
        17.. => ("datlocprovider", "datlocale::text", "daticurules::text"),
    };
    let sql = format!(
        "SELECT datallowconn AND datconnlimit <> -2, pg_has_role(datdba, 'USAGE'), has_database_privilege(oid, 'CREATE'), \
             coalesce(shobj_description(oid, 'pg_database'), ''), pg_encoding_to_char(encoding)::text, \
             CASE {provider} WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, \
             datcollate::text, datctype::text, {locale}, {rules} \
         FROM pg_database WHERE datname = $1"
    );
    let row = session.query_opt(&sql, &[&database]).await.map_err(failed)?;
    Ok(row.map(|row| DatabaseRow {
        connectable: row.get(0),
        owned: row.get(1),
        may_create: row.get(2),
        mark: Mark::of_comment(row.get(3)),
        locale: Locale {
            encoding: row.get(4),
            provider: row.get(5),
            collate: row.get(6),
            ctype: row.get(7),
            locale: row.get(8),
            icu_rules: row.get(9),
        },
    }))
}

/// Finds out what stands there.
pub(super) async fn find(session: &Session, target: &Target, plan: &RestorePlan) -> Result<DatabaseState, Refusal> {
    let database = &target.database;
    let Some(row) = find_row(session, database).await? else {
        return Ok(DatabaseState::Absent);
    };
    if let Some(mark) = &row.mark {
        if mark.run == plan.run.uid {
            return Ok(DatabaseState::UnfinishedCreated);
        }
        return of_another_run(session, database, &mark.resource, &mark.run).await;
    }
    if !row.connectable {
        return Ok(DatabaseState::Closed);
    }
    let inside = target.connect().await?;
    let failed =
        |error: tokio_postgres::Error| inside.refusal(&error, "looking into the target database", Some(database));
    let rows = ledger::read(&inside).await.map_err(failed)?;
    if let Some(LedgerRow { run, applied_at, .. }) = rows.iter().find(|row| row.applies(plan)) {
        return Ok(DatabaseState::Applied {
            at: applied_at.clone().unwrap_or_default(),
            run: run.clone(),
        });
    }
    let extensions = objects::extensions(&inside).await.map_err(failed)?;
    let begun = rows.iter().find(|row| row.applied_at.is_none());
    if let Some(begun) = begun {
        if begun.run != plan.run.uid {
            let resource = format!("{}/{}", begun.namespace, begun.name);
            return of_another_run(session, database, &resource, &begun.run).await;
        }
        // Extensions that the earlier attempt added go before this one begins.
        let before = extensions
            .into_iter()
            .filter(|(name, _)| begun.extensions_before.contains(name));
        return Ok(DatabaseState::UnfinishedFilled(empty(&row, before)));
    }
    let found = objects::list(&inside, ledger::SCHEMA).await.map_err(failed)?;
    if !found.is_empty() || !rows.is_empty() {
        let named = found.iter().take(OBJECTS_NAMED).map(ToString::to_string);
        let applied = rows
            .iter()
            .map(|row| format!("the restore {}/{}", row.namespace, row.name));
        return Ok(DatabaseState::NotEmpty {
            count: found.len().max(1) as u64,
            first: if found.is_empty() {
                applied.take(1).collect()
            } else {
                named.collect()
            },
        });
    }
    Ok(DatabaseState::Empty(empty(&row, extensions.into_iter())))
}

fn empty(row: &DatabaseRow, extensions: impl Iterator<Item = (String, String)>) -> EmptyDatabase {
    EmptyDatabase {
        owned: row.owned,
        may_create: row.may_create,
        locale: row.locale.clone(),
        extensions: extensions.collect(),
    }
}

/// Whoever works on a database of this name holds the advisory lock, in whichever database of the server. This attempt
/// may hold it itself.
async fn of_another_run(
    session: &Session,
    database: &str,
    resource: &str,
    run: &str,
) -> Result<DatabaseState, Refusal> {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks l WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
               AND (classid::bigint << 32) | objid::bigint = $1 \
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid \
                               AND application_name = current_setting('application_name')))";
    let row = session
        .query_one(sql, &[&mark::lock_key(database)])
        .await
        .map_err(|error| session.refusal(&error, "looking for another restore at work", Some(database)))?;
    Ok(DatabaseState::OfAnotherRun {
        resource: resource.to_owned(),
        run: run.to_owned(),
        working: row.get(0),
    })
}
