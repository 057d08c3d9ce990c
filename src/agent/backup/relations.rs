//! The relations of a database as a dump sees them: what `pg_class` says, and what the session may do with each.

use tokio_postgres::{Client, Row};

use crate::postgres::quote;

/// A table, view, materialized view, foreign table or sequence outside the system schemas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of the catalogs")]
pub(super) struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: String,
    pub unlogged: bool,
    /// `pg_class.relfilenode` as the transaction's snapshot sees it; 0 where there is no storage.
    pub file_node: u32,
    /// The file that is the relation's at this moment, whatever the snapshot says.
    pub file_node_now: u32,
    /// What the qualified name means at this moment; `None` where the session may not look it up.
    pub oid_of_name_now: Option<u32>,
    /// The table that this is a partition of.
    pub partition_of: Option<u32>,
    /// The table whose column owns this sequence.
    pub owned_by: Option<u32>,
    /// Member of an extension.
    pub of_extension: bool,
    /// Its rows belong to the dump although its definition is an extension's (`pg_extension.extconfig`).
    pub configuration: bool,
    pub schema_usable: bool,
    pub readable: bool,
    /// Row security applies to the session's role.
    pub row_security: bool,
}

/// pg_dump leaves out `information_schema` and every schema whose name begins with `pg_` (pg_dump,
/// `selectDumpableNamespace`), but not the configuration tables of extensions there (`processExtensionTables`).
/// Functions of `pg_catalog` alone, which look into caches and take no lock.
const RELATIONS: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u', c.relfilenode,
    coalesce(pg_relation_filenode(c.oid), 0::oid),
    CASE WHEN has_schema_privilege(n.oid, 'USAGE')
        THEN coalesce(to_regclass(quote_ident(n.nspname) || '.' || quote_ident(c.relname))::oid, 0::oid) END,
    CASE WHEN c.relispartition THEN (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid LIMIT 1) END,
    CASE WHEN c.relkind = 'S' THEN (SELECT d.refobjid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
        AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1) END,
    EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
    EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig)),
    coalesce(has_schema_privilege(n.oid, 'USAGE'), true),
    coalesce(CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
        ELSE has_table_privilege(c.oid, 'SELECT') END, true),
    c.relkind IN ('r', 'p') AND row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        OR c.oid IN (SELECT unnest(extconfig) FROM pg_extension))
ORDER BY c.oid";

impl Relation {
    /// Every relation that the transaction's snapshot sees.
    pub async fn all(client: &Client) -> Result<Vec<Self>, tokio_postgres::Error> {
        let rows = client.query(RELATIONS, &[]).await?;
        rows.iter().map(Self::read).collect()
    }

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            kind: row.try_get(3)?,
            unlogged: row.try_get(4)?,
            file_node: row.try_get(5)?,
            file_node_now: row.try_get(6)?,
            oid_of_name_now: row.try_get(7)?,
            partition_of: row.try_get(8)?,
            owned_by: row.try_get(9)?,
            of_extension: row.try_get(10)?,
            configuration: row.try_get(11)?,
            schema_usable: row.try_get(12)?,
            readable: row.try_get(13)?,
            row_security: row.try_get(14)?,
        })
    }

    /// The quoted name with its schema.
    pub fn qualified(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }

    /// An ordinary or a partitioned table: what `LOCK TABLE` and pg_dump lock.
    pub fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p")
    }

    /// What has rows of its own.
    pub fn has_rows(&self) -> bool {
        self.kind == "r"
    }
}
