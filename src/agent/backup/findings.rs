//! Finds what the steps of a backup follow from. Reads only, and locks no table.

use std::collections::{BTreeMap, BTreeSet};

use super::exporter::prepared_session;
use super::relations::Relation;
use super::selection::Selection;
use crate::api::backup::TableName;
use crate::plan::Refusal;
use crate::plan::backup::{BackupPlan, Sections};
use crate::plan::backup_databases::choose_databases;
use crate::plan::backup_findings::{Client, Contents, Database, Findings, NamesOfPlan, Server};
use crate::postgres::client_tools::{ClientTools, ToolSet};
use crate::postgres::connection::{ConnectionSettings, Session};
use crate::postgres::{pooler, quote};

/// What was found, and with what.
pub(super) struct Found {
    pub findings: Findings,
    /// Lead to the instance that was looked at, whatever the host's name means later.
    pub settings: ConnectionSettings,
    pub tools: Option<ToolSet>,
}

/// Looks at the server, and at each database that the plan chooses.
pub(super) async fn gather(
    plan: &BackupPlan,
    settings: &ConnectionSettings,
    client_tools: &ClientTools,
) -> Result<Found, Refusal> {
    let session = prepared_session(settings).await?;
    let pooler = pooler::detect(&session).await?;
    let reliable = pooler.is_none();
    let server = server(&session, pooler).await?;
    let tools = client_tools.for_dump(session.server_major());
    let (client, tools) = match tools {
        Ok(tools) => {
            let (major, version) = (tools.major, tools.version.clone());
            (Ok(Client { major, version }), Some(tools.clone()))
        }
        Err(error) => (Err(Refusal::from(error)), None),
    };
    let mut databases = BTreeMap::new();
    // Where there is a refusal already, no database is looked at.
    if reliable && client.is_ok() {
        let all = databases_of(&session).await?;
        for name in choose_databases(&plan.databases, settings.database(), &all, &server.role)? {
            let contents = contents(plan, &server, &session.settings().with_database(&name)).await?;
            databases.insert(name, contents);
        }
    }
    Ok(Found {
        findings: Findings {
            server,
            client,
            databases,
        },
        settings: session.settings().clone(),
        tools,
    })
}

const SERVER: &str = "
SELECT current_user::text, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), pg_is_in_recovery(),
    has_table_privilege('pg_catalog.pg_authid', 'SELECT'),
    current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)";

async fn server(session: &Session, pooler: Option<Refusal>) -> Result<Server, Refusal> {
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "reading the server's settings", None);
    let row = session.query_one(SERVER, &[]).await.map_err(failed)?;
    let read = || {
        Ok(Server {
            location: session.settings().location(),
            version: session.server_version().to_owned(),
            role: row.try_get(0)?,
            superuser: row.try_get(1)?,
            pooler,
            in_recovery: row.try_get(2)?,
            reads_role_passwords: row.try_get(3)?,
            lock_slots: unsigned(row.try_get(4)?),
        })
    };
    read().map_err(failed)
}

async fn databases_of(session: &Session) -> Result<Vec<Database>, Refusal> {
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "listing the databases", None);
    let sql = "SELECT datname::text, datallowconn, has_database_privilege(oid, 'CONNECT') FROM pg_database ORDER BY 1";
    let rows = session.query(sql, &[]).await.map_err(failed)?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Database {
            name: row.try_get(0)?,
            allows_connections: row.try_get(1)?,
            may_connect: row.try_get(2)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

async fn contents(plan: &BackupPlan, server: &Server, settings: &ConnectionSettings) -> Result<Contents, Refusal> {
    let session = prepared_session(settings).await?;
    let failed = |error: tokio_postgres::Error| session.refusal(&error, "reading the catalogs", settings.database());
    let relations = Relation::all(&session).await.map_err(failed)?;
    let selection = Selection::of_plan(plan, &relations);
    let mut contents = of_relations(&selection, &relations);
    contents.known = NamesOfPlan {
        schemas: schemas(&session, plan.schemas.names()).await.map_err(failed)?,
        tables: tables(plan, &relations),
    };
    let size = session
        .query_one("SELECT pg_database_size(current_database())", &[])
        .await
        .map_err(failed)?;
    contents.bytes = unsigned(size.try_get(0).map_err(failed)?);
    if !server.superuser && selection.takes_everything() {
        contents.subscriptions = subscriptions(&session).await.map_err(failed)?;
        if plan.sections != Sections::Schema {
            contents.unreadable_large_objects = unreadable_large_objects(&session).await.map_err(failed)?;
        }
    }
    Ok(contents)
}

fn of_relations(selection: &Selection<'_>, relations: &[Relation]) -> Contents {
    let mut contents = Contents::default();
    let mut closed_schemas = BTreeSet::new();
    let chosen: BTreeSet<u32> = relations
        .iter()
        .filter(|relation| selection.includes(relation))
        .map(|relation| relation.oid)
        .collect();
    for relation in relations {
        let locks = selection.locks(relation);
        let stores_value = selection.stores_value(relation, &chosen);
        if (locks || stores_value) && !relation.schema_usable {
            closed_schemas.insert(quote::identifier(&relation.schema));
        }
        if locks {
            contents.locked_tables += 1;
            if !relation.readable {
                contents.unreadable_tables.push(relation.qualified());
            }
        }
        if stores_value && !relation.readable {
            contents.unreadable_sequences.push(relation.qualified());
        }
        if selection.stores_rows(relation) {
            contents.tables_with_data += 1;
            contents.unlogged_tables += u64::from(relation.unlogged);
            if relation.row_security {
                contents.row_security.push(relation.qualified());
            }
        }
    }
    contents.closed_schemas = closed_schemas.into_iter().collect();
    contents
}

async fn schemas(session: &Session, names: &[String]) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT nspname::text FROM pg_namespace \
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspname::text = ANY ($1) ORDER BY 1";
    session
        .query(sql, &[&names])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect()
}

fn tables(plan: &BackupPlan, relations: &[Relation]) -> Vec<TableName> {
    let names = plan.tables.names().iter().chain(&plan.exclude_table_data);
    let known = |table: &&TableName| {
        let of_name = |relation: &Relation| relation.schema == table.schema && relation.name == table.name;
        relations
            .iter()
            .any(|relation| of_name(relation) && !relation.of_extension)
    };
    names.filter(known).cloned().collect()
}

/// Of `pg_subscription` everyone may read these columns.
async fn subscriptions(session: &Session) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT subname::text FROM pg_subscription \
        WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1";
    session
        .query(sql, &[])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect()
}

/// `has_largeobject_privilege` came with PostgreSQL 18.
const UNREADABLE_LARGE_OBJECTS: &str = "
SELECT count(*) FROM pg_largeobject_metadata l
WHERE current_setting('lo_compat_privileges') = 'off' AND NOT pg_has_role(l.lomowner, 'USAGE')
    AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
        WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))";

async fn unreadable_large_objects(session: &Session) -> Result<u64, tokio_postgres::Error> {
    session
        .query_one(UNREADABLE_LARGE_OBJECTS, &[])
        .await?
        .try_get(0)
        .map(unsigned)
}

/// Sizes and counts of PostgreSQL are never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
