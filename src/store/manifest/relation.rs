//! One relation: a table, view, sequence, foreign table, …, with what belongs to it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ChunkedRows;
use crate::postgres::foreign::ShownOptions;

/// A relation.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelationManifest {
    /// OID.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Owner.
    pub owner: String,
    /// Whether it is written to the write-ahead log.
    pub persistence: Persistence,
    /// Tablespace, where it is not the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// Table access method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_method: Option<String>,
    /// Extension that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Whether row-level security is on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub row_security: bool,
    /// Whether it holds for the owner too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force_row_security: bool,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Columns, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnManifest>,
    /// Constraints, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<ConstraintManifest>,
    /// Indexes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<IndexManifest>,
    /// How its rows are divided, and which part of another it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitioning: Option<PartitioningManifest>,
    /// Tables that it inherits from without being a partition, each `schema.name` quoted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<String>,
    /// What makes it a foreign table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_table: Option<ForeignTableManifest>,
    /// Rows as the planner estimates them; `None` where it never counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_rows: Option<f64>,
    /// Pages as the planner knows them.
    pub pages: u64,
    /// Bytes of the heap and its maps; `None` where it has no storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<u64>,
    /// Bytes of the indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_bytes: Option<u64>,
    /// Bytes with indexes and TOAST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Last VACUUM by hand, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_vacuum: Option<String>,
    /// Last VACUUM by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_autovacuum: Option<String>,
    /// Last ANALYZE by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_analyze: Option<String>,
    /// Last ANALYZE by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_autoanalyze: Option<String>,
    /// Rows stored, counted as they went by; `None` where none were to be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Where its rows are in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataManifest>,
    /// Its rows, where they are stored as chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<ChunkedRows>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What a relation is (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are PostgreSQL's")]
pub enum RelationKind {
    #[default]
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    Sequence,
    ForeignTable,
    CompositeType,
}

/// Whether a relation is written to the write-ahead log (`pg_class.relpersistence`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are PostgreSQL's")]
pub enum Persistence {
    #[default]
    Permanent,
    Unlogged,
    Temporary,
}

/// A column.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ColumnManifest {
    /// Name.
    pub name: String,
    /// Type, with its modifier, as `format_type` writes it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// `NOT NULL`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_null: bool,
    /// Default, or the expression of a generated column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// `ALWAYS` or `BY DEFAULT`, for an identity column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// `STORED` or `VIRTUAL`, for a generated column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// Collation, where it is not the type's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
}

/// A constraint.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConstraintManifest {
    /// Name.
    pub name: String,
    /// `PRIMARY KEY`, `UNIQUE`, `FOREIGN KEY`, `CHECK`, `EXCLUDE`, `NOT NULL` or `TRIGGER`.
    pub kind: String,
    /// As `pg_get_constraintdef` writes it.
    pub definition: String,
    /// Whether all rows were checked.
    pub validated: bool,
}

/// An index.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IndexManifest {
    /// Name.
    pub name: String,
    /// As `pg_get_indexdef` writes it.
    pub definition: String,
    /// Whether queries may use it.
    pub valid: bool,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How a partitioned table is divided, and which part of another a relation is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PartitioningManifest {
    /// Key, as `pg_get_partkeydef` writes it, such as `RANGE (day)`; for a partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Schema of the table that it is a partition of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_schema: Option<String>,
    /// Name of the table that it is a partition of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_name: Option<String>,
    /// Bounds, such as `FOR VALUES FROM (1) TO (2)`; for a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<String>,
}

/// What makes a relation a foreign table.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ForeignTableManifest {
    /// Foreign server.
    pub server: String,
    /// Options by name; null where the value may be a secret.
    pub options: ShownOptions,
    /// Options of columns, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_options: BTreeMap<String, ShownOptions>,
}

/// Rows of a relation in the archive.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DataManifest {
    /// Dump id of the archive's entry.
    pub dump_id: i32,
    /// Where the block begins in the stored archive, in bytes.
    pub offset: u64,
    /// Bytes in the archive.
    pub stored_bytes: u64,
    /// Bytes before compression.
    pub bytes: u64,
}
