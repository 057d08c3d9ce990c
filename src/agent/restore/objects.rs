//! What users have made in a database: whether it is empty, and emptying it again.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::postgres::quote::identifier;
use crate::postgres::sqlstate;

/// Every object that initdb did not make and that belongs to no extension, with its place in the order of dropping.
/// Parts of tables (indexes, constraints, triggers, policies, rules, row types) go with their table. `$1` names the
/// schema of the ledger.
const OBJECTS: &str = "
WITH object (classid, objid, place) AS (
    SELECT 'pg_event_trigger'::regclass, oid, 0 FROM pg_event_trigger
    UNION ALL SELECT 'pg_publication'::regclass, oid, 0 FROM pg_publication
    UNION ALL SELECT 'pg_subscription'::regclass, oid, 0 FROM pg_subscription
        WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'pg_class'::regclass, c.oid, CASE WHEN relkind = 'S' THEN 2 ELSE 1 END FROM pg_class c
        JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'pg_proc'::regclass, oid, 3 FROM pg_proc
    UNION ALL SELECT 'pg_operator'::regclass, oid, 3 FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, 3 FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, 3 FROM pg_opfamily
    UNION ALL SELECT 'pg_cast'::regclass, oid, 3 FROM pg_cast
    UNION ALL SELECT 'pg_transform'::regclass, oid, 3 FROM pg_transform
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, 3 FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, 4 FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, 5 FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, 5 FROM pg_ts_template
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 2 FROM pg_statistic_ext
    UNION ALL SELECT 'pg_type'::regclass, t.oid, 4 FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE (typrelid = 0 OR relkind = 'c')
          AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    UNION ALL SELECT 'pg_collation'::regclass, oid, 5 FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, 5 FROM pg_conversion
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 5 FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 6 FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_language'::regclass, oid, 6 FROM pg_language
    UNION ALL SELECT 'pg_am'::regclass, oid, 6 FROM pg_am
    UNION ALL SELECT 'pg_default_acl'::regclass, oid, 6 FROM pg_default_acl
    UNION ALL SELECT 'pg_namespace'::regclass, oid, 7 FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', $1)
    UNION ALL SELECT 'pg_largeobject'::regclass, oid, 8 FROM pg_largeobject_metadata
), own AS (
    SELECT classid, objid, place FROM object
    -- Objects of initdb have OIDs below FirstNormalObjectId (access/transam.h).
    WHERE (objid >= 16384 OR classid = 'pg_largeobject'::regclass)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = object.classid AND d.objid = object.objid
                      AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass)
      -- What is part of something else: sequences of identity columns, multiranges of ranges.
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = object.classid AND d.objid = object.objid
                      AND d.deptype = 'i')
)
SELECT i.type, i.identity, own.objid FROM own, pg_identify_object(classid, objid, 0) AS i
WHERE i.schema IS DISTINCT FROM $1 AND i.type IS NOT NULL
ORDER BY place, objid DESC";

/// An object of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserObject {
    /// Kind, as `pg_identify_object` names it.
    kind: String,
    /// Quoted name with schema and, for routines, arguments.
    identity: String,
    oid: u32,
}

impl std::fmt::Display for UserObject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.kind, self.identity)
    }
}

/// What users have made in the session's database, in the order in which it can be dropped. Extensions and the ledger
/// are left aside.
pub(super) async fn list(client: &Client, ledger_schema: &str) -> Result<Vec<UserObject>, tokio_postgres::Error> {
    let rows = client.query(OBJECTS, &[&ledger_schema]).await?;
    rows.iter()
        .map(|row| {
            Ok(UserObject {
                kind: row.try_get(0)?,
                identity: row.try_get(1)?,
                oid: row.try_get(2)?,
            })
        })
        .collect()
}

/// Extensions with their schemas, `plpgsql` of every new database aside.
pub(super) async fn extensions(client: &Client) -> Result<Vec<(String, String)>, tokio_postgres::Error> {
    let sql = "SELECT extname::text, nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace \
               WHERE pg_extension.oid >= 16384 ORDER BY 1";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Drops everything that `list` shows, and every extension but those of `keep`. Returns what is left, each thing in
/// words; one that cannot be dropped does not keep the others.
pub(super) async fn drop_all(
    client: &Client,
    ledger_schema: &str,
    keep: &[String],
) -> Result<Vec<String>, tokio_postgres::Error> {
    // An object that something else holds goes in a later pass; a pass that drops nothing is the last.
    let mut left = usize::MAX;
    loop {
        let objects = list(client, ledger_schema).await?;
        let added: Vec<_> = extensions(client).await?;
        let added: Vec<_> = added.into_iter().filter(|(name, _)| !keep.contains(name)).collect();
        let now = objects.len() + added.len();
        if now == 0 || now >= left {
            let extensions = added.into_iter().map(|(name, _)| format!("extension {name:?}"));
            return Ok(objects.iter().map(ToString::to_string).chain(extensions).collect());
        }
        left = now;
        for object in &objects {
            for statement in drop_statements(client, object).await? {
                run_if_possible(client, &statement).await?;
            }
        }
        for (name, _) in &added {
            run_if_possible(
                client,
                &format!("DROP EXTENSION IF EXISTS {} CASCADE", identifier(name)),
            )
            .await?;
        }
    }
}

/// Runs a statement; an error of PostgreSQL is left to the count of what remains, a lost connection is not.
pub(super) async fn run_if_possible(client: &Client, statement: &str) -> Result<(), tokio_postgres::Error> {
    match client.batch_execute(statement).await {
        Err(error) if error.as_db_error().is_none() || client.is_closed() => Err(error),
        Err(error) if !sqlstate::is(&error, &SqlState::UNDEFINED_TABLE) => {
            tracing::debug!(
                sqlstate = error.code().map(SqlState::code),
                "an object could not be dropped yet"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn drop_statements(client: &Client, object: &UserObject) -> Result<Vec<String>, tokio_postgres::Error> {
    let UserObject { kind, identity, oid } = object;
    let drop = |kind: &str| vec![format!("DROP {kind} IF EXISTS {identity} CASCADE")];
    Ok(match kind.as_str() {
        "function" | "procedure" | "aggregate" => drop("ROUTINE"),
        "composite type" | "domain" => drop("TYPE"),
        "foreign-data wrapper" => drop("FOREIGN DATA WRAPPER"),
        "statistics object" => drop("STATISTICS"),
        "large object" => vec![format!("SELECT lo_unlink({oid})")],
        "subscription" => drop_subscription(identity),
        "transform" => vec![format!("DROP TRANSFORM IF EXISTS {}", of_transform(identity))],
        "default acl" => default_privileges(client, *oid).await?,
        other => drop(&other.to_uppercase()),
    })
}

/// A subscription that is made with `connect = false` has no slot on the other side: it is dropped without asking it.
pub(super) fn drop_subscription(identity: &str) -> Vec<String> {
    vec![
        format!("ALTER SUBSCRIPTION {identity} DISABLE"),
        format!("ALTER SUBSCRIPTION {identity} SET (slot_name = NONE)"),
        format!("DROP SUBSCRIPTION {identity}"),
    ]
}

/// `for integer on language sql`, as `pg_identify_object` says it, in the words of `DROP TRANSFORM`.
fn of_transform(identity: &str) -> String {
    match identity.rsplit_once(" on language ") {
        Some((r#type, language)) => format!("{type} LANGUAGE {language}"),
        None => identity.to_owned(),
    }
}

/// Statements that bring default privileges back to what they are without an entry; PostgreSQL then drops the entry.
async fn default_privileges(client: &Client, oid: u32) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "
        SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s', pg_get_userbyid(defaclrole),
                CASE WHEN nspname IS NULL THEN '' ELSE format('IN SCHEMA %I ', nspname) END),
            CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
            format('%I', pg_get_userbyid(defaclrole)), defaclnamespace = 0,
            ARRAY(SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE format('%I', pg_get_userbyid(grantee)) END
                  FROM aclexplode(defaclacl))
        FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace WHERE pg_default_acl.oid = $1";
    let Some(row) = client.query_opt(sql, &[&oid]).await? else {
        return Ok(Vec::new());
    };
    let (alter, objects, owner): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let everywhere: bool = row.try_get(3)?;
    let grantees: Vec<String> = row.try_get(4)?;
    let mut statements: Vec<_> = grantees
        .iter()
        .map(|grantee| format!("{alter}REVOKE ALL ON {objects} FROM {grantee}"))
        .collect();
    if everywhere {
        statements.push(format!("{alter}GRANT ALL ON {objects} TO {owner}"));
        // What PUBLIC has of every new function and type (manual, section "Privileges").
        match objects.as_str() {
            "FUNCTIONS" => statements.push(format!("{alter}GRANT EXECUTE ON FUNCTIONS TO PUBLIC")),
            "TYPES" => statements.push(format!("{alter}GRANT USAGE ON TYPES TO PUBLIC")),
            _ => {}
        }
    }
    Ok(statements)
}
