//! Databases: the list of a server, and the one that a session is in.

use tokio_postgres::types::Oid;

use super::reader::{Columns as _, Reader};
use crate::plan::Refusal;
use crate::postgres::connection::Session;
use crate::store::manifest::{DatabaseManifest, GrantManifest, LocaleManifest};

/// A database of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseEntry {
    /// OID.
    pub oid: Oid,
    /// Name.
    pub name: String,
    /// `ALLOW_CONNECTIONS`.
    pub allows_connections: bool,
    /// Whether the role of the session has `CONNECT`.
    pub may_connect: bool,
    /// Whether it is a template.
    pub is_template: bool,
}

/// All databases of the server, by name.
pub async fn list(session: &Session) -> Result<Vec<DatabaseEntry>, Refusal> {
    let sql = "SELECT oid, datname AS name, datallowconn, has_database_privilege(oid, 'CONNECT') AS may_connect, \
                      datistemplate \
               FROM pg_database ORDER BY datname";
    let mut databases = Vec::new();
    Reader::new(session, None)
        .each("list of databases", sql, &[], |row| {
            databases.push(DatabaseEntry {
                oid: row.try_get("oid")?,
                name: row.text("name")?,
                allows_connections: row.try_get("datallowconn")?,
                may_connect: row.try_get("may_connect")?,
                is_template: row.try_get("datistemplate")?,
            });
            Ok(())
        })
        .await?;
    Ok(databases)
}

pub(super) async fn read(reader: &mut Reader<'_>) -> Result<DatabaseManifest, Refusal> {
    // Columns that came with 15, 16 and 17, or changed their names, are read by way of JSON.
    let sql = "SELECT d.oid, d.datname AS name, pg_get_userbyid(d.datdba) AS owner, \
                      pg_encoding_to_char(d.encoding) AS encoding, t.spcname AS tablespace, \
                      coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider, \
                      coalesce(to_jsonb(d) ->> 'datcollate', '') AS collate, \
                      coalesce(to_jsonb(d) ->> 'datctype', '') AS ctype, \
                      coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale, \
                      to_jsonb(d) ->> 'daticurules' AS icu_rules, \
                      to_jsonb(d) ->> 'datcollversion' AS collation_version, \
                      d.datconnlimit AS connection_limit, d.datistemplate AS is_template, \
                      shobj_description(d.oid, 'pg_database') AS comment, d.datacl IS NOT NULL AS has_grants, \
                      pg_database_size(d.oid) AS bytes \
               FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace \
               WHERE d.datname = current_database()";
    let (mut database, has_grants) = reader
        .one("properties of the database", sql, &[], |row| {
            let locale = LocaleManifest {
                encoding: row.text("encoding")?,
                provider: provider(&row.text("provider")?),
                collate: row.text("collate")?,
                ctype: row.text("ctype")?,
                locale: row.optional_text("locale")?,
                icu_rules: row.optional_text("icu_rules")?,
                collation_version: row.optional_text("collation_version")?,
            };
            let database = DatabaseManifest {
                oid: row.try_get("oid")?,
                name: row.text("name")?,
                owner: row.text("owner")?,
                locale,
                tablespace: row.text("tablespace")?,
                connection_limit: row.try_get("connection_limit")?,
                is_template: row.try_get("is_template")?,
                comment: row.optional_text("comment")?,
                bytes: row.count("bytes")?,
                ..DatabaseManifest::default()
            };
            Ok((database, row.try_get::<_, bool>("has_grants")?))
        })
        .await?;
    if has_grants {
        database.grants = Some(grants(reader).await?);
    }
    Ok(database)
}

fn provider(letter: &str) -> String {
    match letter {
        "i" => "icu",
        "b" => "builtin",
        _ => "libc",
    }
    .to_owned()
}

async fn grants(reader: &mut Reader<'_>) -> Result<Vec<GrantManifest>, Refusal> {
    let sql = "SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END AS grantee, \
                      pg_get_userbyid(a.grantor) AS grantor, a.privilege_type AS privilege, \
                      a.is_grantable AS grantable \
               FROM pg_database d, LATERAL aclexplode(d.datacl) a \
               WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 3, 2";
    let mut grants = Vec::new();
    reader
        .describe("databases.grants", sql, &[], |row| {
            grants.push(GrantManifest {
                grantee: row.optional_text("grantee")?,
                grantor: row.text("grantor")?,
                privilege: row.text("privilege")?,
                grantable: row.try_get("grantable")?,
            });
            Ok(())
        })
        .await?;
    Ok(grants)
}
