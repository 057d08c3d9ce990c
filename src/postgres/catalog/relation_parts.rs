//! What belongs to relations: one query for each kind of part, never one for each relation.

use super::foreign_servers::shown;
use super::reader::{Columns as _, Reader};
use super::relations::{LISTED, Relations};
use crate::plan::Refusal;
use crate::postgres::foreign::OptionOf;
use crate::store::manifest::{ColumnManifest, ConstraintManifest, IndexManifest};

pub(super) async fn columns(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT a.attrelid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull, \
                CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END AS identity, \
                CASE a.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END AS generated, \
                a.attfdwoptions AS options, \
                (SELECT l.collname FROM pg_collation l, pg_type t \
                 WHERE t.oid = a.atttypid AND l.oid = a.attcollation AND a.attcollation <> t.typcollation) AS collation \
         FROM (SELECT c.oid {LISTED} AND c.relkind <> 'S') c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"
    );
    reader
        .describe("databases.relations.columns", &sql, &[], |row| {
            let column = ColumnManifest {
                name: row.text("name")?,
                data_type: row.text("type")?,
                not_null: row.try_get("attnotnull")?,
                default: None,
                identity: row.optional_text("identity")?,
                generated: row.optional_text("generated")?,
                collation: row.optional_text("collation")?,
            };
            let options = row.texts("options")?;
            if let Some(relation) = relations.of(row.try_get("attrelid")?) {
                if let Some(foreign) = relation.foreign_table.as_mut().filter(|_| !options.is_empty()) {
                    let options = shown(OptionOf::Table, &options);
                    foreign.column_options.insert(column.name.clone(), options);
                }
                relation.columns.push(column);
            }
            Ok(())
        })
        .await
}

/// Defaults, and the expressions of generated columns.
pub(super) async fn defaults(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT d.adrelid, a.attname AS name, pg_get_expr(d.adbin, d.adrelid) AS expression \
         FROM (SELECT c.oid {LISTED}) c JOIN pg_attrdef d ON d.adrelid = c.oid \
              JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
    );
    reader
        .describe("databases.relations.columns.default", &sql, &[], |row| {
            let (name, expression) = (row.text("name")?, row.optional_text("expression")?);
            let columns = relations
                .of(row.try_get("adrelid")?)
                .map(|relation| relation.columns.iter_mut());
            if let Some(column) = columns.into_iter().flatten().find(|column| column.name == name) {
                column.default = expression;
            }
            Ok(())
        })
        .await
}

/// Keys of partitioned tables and bounds of partitions.
pub(super) async fn partitioning(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT c.oid, CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END AS bounds, \
                CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS key \
         {LISTED} AND (c.relispartition OR c.relkind = 'p')"
    );
    reader
        .describe("databases.relations.partitioning", &sql, &[], |row| {
            let (key, bounds) = (row.optional_text("key")?, row.optional_text("bounds")?);
            if let Some(relation) = relations.of(row.try_get("oid")?) {
                let partitioning = relation.partitioning.get_or_insert_default();
                partitioning.key = key;
                partitioning.bounds = bounds;
            }
            Ok(())
        })
        .await
}

pub(super) async fn constraints(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT k.conrelid, k.conname AS name, pg_get_constraintdef(k.oid) AS definition, k.convalidated, \
                CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' \
                     WHEN 'c' THEN 'CHECK' WHEN 'x' THEN 'EXCLUDE' WHEN 'n' THEN 'NOT NULL' ELSE 'TRIGGER' END AS kind \
         FROM (SELECT c.oid {LISTED}) c JOIN pg_constraint k ON k.conrelid = c.oid ORDER BY k.conrelid, k.conname"
    );
    reader
        .describe("databases.relations.constraints", &sql, &[], |row| {
            let constraint = ConstraintManifest {
                name: row.text("name")?,
                kind: row.text("kind")?,
                definition: row.optional_text("definition")?.unwrap_or_default(),
                validated: row.try_get("convalidated")?,
            };
            if let Some(relation) = relations.of(row.try_get("conrelid")?) {
                relation.constraints.push(constraint);
            }
            Ok(())
        })
        .await
}

pub(super) async fn indexes(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT i.indrelid, x.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, \
                i.indisvalid AND i.indisready AS valid, \
                x.relpages::bigint * current_setting('block_size')::bigint AS bytes \
         FROM (SELECT c.oid {LISTED}) c JOIN pg_index i ON i.indrelid = c.oid \
              JOIN pg_class x ON x.oid = i.indexrelid ORDER BY i.indrelid, x.relname"
    );
    reader
        .describe("databases.relations.indexes", &sql, &[], |row| {
            let index = IndexManifest {
                name: row.text("name")?,
                definition: row.optional_text("definition")?.unwrap_or_default(),
                valid: row.try_get("valid")?,
                bytes: row.count("bytes")?,
            };
            if let Some(relation) = relations.of(row.try_get("indrelid")?) {
                relation.indexes.push(index);
            }
            Ok(())
        })
        .await
}

/// Parents of partitions and of tables that inherit.
pub(super) async fn parents(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = "SELECT i.inhrelid, n.nspname AS schema, p.relname AS name, c.relispartition AS partition, \
                      format('%I.%I', n.nspname, p.relname) AS quoted \
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent \
                    JOIN pg_namespace n ON n.oid = p.relnamespace \
               WHERE c.relkind IN ('r', 'p', 'f') ORDER BY i.inhrelid, i.inhseqno";
    reader
        .describe("databases.relations.inherits", sql, &[], |row| {
            let (schema, name) = (row.text("schema")?, row.text("name")?);
            let (is_partition, quoted): (bool, String) = (row.try_get("partition")?, row.text("quoted")?);
            let Some(relation) = relations.of(row.try_get("inhrelid")?) else {
                return Ok(());
            };
            if is_partition {
                let partitioning = relation.partitioning.get_or_insert_default();
                partitioning.parent_schema = Some(schema);
                partitioning.parent_name = Some(name);
            } else {
                relation.inherits.push(quoted);
            }
            Ok(())
        })
        .await
}

pub(super) async fn sizes(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let sql = format!(
        "SELECT oid, pg_table_size(oid) AS table_bytes, pg_indexes_size(oid) AS index_bytes, \
                pg_total_relation_size(oid) AS total_bytes \
         FROM (SELECT c.oid {LISTED} AND c.relkind IN ('r', 'm', 'S')) c"
    );
    let field = "databases.relations.totalBytes";
    reader
        .describe(field, &sql, &[], |row| {
            let (table, indexes) = (row.count("table_bytes")?, row.count("index_bytes")?);
            let total = row.count("total_bytes")?;
            if let Some(relation) = relations.of(row.try_get("oid")?) {
                relation.table_bytes = table;
                relation.index_bytes = indexes;
                relation.total_bytes = total;
            }
            Ok(())
        })
        .await
}

/// When each table was last vacuumed and analyzed.
pub(super) async fn maintenance(reader: &mut Reader<'_>, relations: &mut Relations) -> Result<(), Refusal> {
    let time =
        |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS {column}");
    let sql = format!(
        "SELECT relid, {}, {}, {}, {} FROM pg_stat_user_tables",
        time("last_vacuum"),
        time("last_autovacuum"),
        time("last_analyze"),
        time("last_autoanalyze"),
    );
    reader
        .describe("databases.relations.lastAnalyze", &sql, &[], |row| {
            let Some(relation) = relations.of(row.try_get("relid")?) else {
                return Ok(());
            };
            relation.last_vacuum = row.optional_text("last_vacuum")?;
            relation.last_autovacuum = row.optional_text("last_autovacuum")?;
            relation.last_analyze = row.optional_text("last_analyze")?;
            relation.last_autoanalyze = row.optional_text("last_autoanalyze")?;
            Ok(())
        })
        .await
}
