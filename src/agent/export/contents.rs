//! What the exported archive has: the entries of the stored one, and an entry with rows for each table whose rows are
//! chunks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::ExportError;
use crate::plan::backup::Sections;
use crate::postgres::archive::{DataSummary, Section, Text, Toc, TocEntry};
use crate::postgres::quote::{identifier, literal, qualified};
use crate::store::manifest::{ChunkedRows, DatabaseManifest, RelationManifest, RowFormat};

/// The exported archive.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    /// Its table of contents.
    pub toc: Toc,
    /// Files by entry.
    pub files: BTreeMap<i32, String>,
    /// Tables whose rows come from chunks.
    pub tables: Vec<Table<'a>>,
}

/// A table whose rows come from chunks.
#[derive(Clone, Debug)]
pub(super) struct Table<'a> {
    /// File of its rows.
    pub file: String,
    /// The table.
    pub relation: &'a RelationManifest,
    /// Its chunks.
    pub rows: &'a ChunkedRows,
}

impl Table<'_> {
    /// Quoted name.
    pub(super) fn name(&self) -> String {
        qualified(&self.relation.schema, &self.relation.name)
    }
}

/// Types whose values of a hash do not depend on the server, its encoding or its collations, as `format_type` writes
/// them. Rows of partitions by another hash go through the root.
const SAFELY_HASHED: [&str; 11] = [
    "smallint",
    "integer",
    "bigint",
    "oid",
    "uuid",
    "date",
    "boolean",
    "numeric",
    "timestamp without time zone",
    "timestamp with time zone",
    "bytea",
];

impl<'a> Contents<'a> {
    /// The entries and files for a database of a backup with these sections.
    pub(super) fn plan(toc: &Toc, database: &'a DatabaseManifest, sections: Sections) -> Result<Self, ExportError> {
        let own = toc.entries.iter().filter(|entry| entry.has_data);
        let mut files: BTreeMap<i32, String> = own
            .map(|entry| {
                let file = match entry.description.to_str() {
                    Some("BLOBS") => toc.large_objects_file(entry.dump_id),
                    _ => file_of_rows(entry.dump_id),
                };
                (entry.dump_id, file)
            })
            .collect();
        let definitions: BTreeMap<u32, &TocEntry> = toc
            .entries
            .iter()
            .filter(|entry| entry.description == "TABLE")
            .map(|entry| (entry.catalog_oid, entry))
            .collect();
        let in_archive: BTreeSet<u32> = toc
            .entries
            .iter()
            .filter(|entry| entry.description == "TABLE DATA")
            .map(|entry| entry.catalog_oid)
            .collect();
        let last = toc.entries.iter().map(|entry| entry.dump_id).max().unwrap_or_default();
        let (mut tables, mut entries) = (Vec::new(), Vec::new());
        for (relation, rows) in chunked(database) {
            check_rows(relation, rows)?;
            if in_archive.contains(&relation.oid) {
                return Err(contradiction(relation, "are in the archive and in chunks"));
            }
            let definition = definitions.get(&relation.oid).copied();
            if definition.is_none() && sections == Sections::All {
                return Err(contradiction(
                    relation,
                    "belong to a table that the archive does not define",
                ));
            }
            let dump_id = i32::try_from(entries.len() + 1)
                .ok()
                .and_then(|number| last.checked_add(number));
            let dump_id = dump_id.ok_or_else(|| contradiction(relation, "have no number left in the archive"))?;
            let load = Load {
                database,
                relation,
                rows,
                archive_encoding: toc.encoding(),
            };
            entries.push(load.entry(dump_id, definition));
            let file = file_of_rows(dump_id);
            files.insert(dump_id, file.clone());
            tables.push(Table { file, relation, rows });
        }
        let mut toc = toc.clone();
        let at = position(&toc.entries);
        toc.entries.splice(at..at, entries);
        toc.attach_indexes_in_turn();
        Ok(Self { toc, files, tables })
    }

    /// Tables whose rows are stored in binary.
    pub(super) fn binary(&self) -> impl Iterator<Item = &Table<'a>> {
        self.tables
            .iter()
            .filter(|table| table.rows.format == RowFormat::Binary)
    }

    /// Whether `pg_restore --list` names every entry with data; a line begins with the number of its entry.
    pub(super) fn check_listing(&self, listing: &str) -> Result<(), ExportError> {
        let listed: BTreeSet<i32> = listing
            .lines()
            .filter_map(|line| line.split_once(';')?.0.parse().ok())
            .collect();
        let mut missing = self.files.keys().filter(|dump_id| !listed.contains(dump_id));
        let Some(first) = missing.next() else {
            return Ok(());
        };
        Err(ExportError::NotListed {
            missing: missing.count() + 1,
            first: self.toc.entry(*first).map(TocEntry::label).unwrap_or_default(),
        })
    }
}

/// Relations whose rows are chunks.
fn chunked(database: &DatabaseManifest) -> impl Iterator<Item = (&RelationManifest, &ChunkedRows)> {
    let relations = database.relations.iter();
    relations.filter_map(|relation| Some((relation, relation.chunks.as_ref()?)))
}

/// The name that pg_dump gives it (`_ArchiveEntry`).
fn file_of_rows(dump_id: i32) -> String {
    format!("{dump_id}.dat")
}

/// Rows stand behind the other data, and before what is built over them.
fn position(entries: &[TocEntry]) -> usize {
    let last = entries.iter().rposition(|entry| entry.section == Section::Data);
    let first_built = || entries.iter().position(|entry| entry.section == Section::PostData);
    last.map(|at| at + 1).or_else(first_built).unwrap_or(entries.len())
}

fn contradiction(relation: &RelationManifest, problem: &str) -> ExportError {
    let name = qualified(&relation.schema, &relation.name);
    ExportError::Inconsistent(format!("the rows of {name} {problem}"))
}

/// A manifest that was edited must not pass for a whole backup.
fn check_rows(relation: &RelationManifest, rows: &ChunkedRows) -> Result<(), ExportError> {
    let mut chunks = rows.chunks.iter();
    let sum = chunks.try_fold(0_u64, |sum, chunk| sum.checked_add(chunk.rows));
    if sum.is_some() && sum == relation.rows {
        Ok(())
    } else {
        Err(contradiction(relation, "are not as many as those of its chunks"))
    }
}

/// Whether the archive held what the backup counted.
pub(super) fn check_counts(summary: &DataSummary, database: &DatabaseManifest) -> Result<(), ExportError> {
    let found: BTreeMap<_, _> = summary.blocks.iter().map(|block| (block.dump_id, block.rows)).collect();
    for relation in &database.relations {
        if let (Some(data), Some(rows)) = (&relation.data, relation.rows)
            && found.get(&data.dump_id).copied().flatten() != Some(rows)
        {
            return Err(contradiction(
                relation,
                "are not as many in the archive as the backup counted",
            ));
        }
    }
    if summary.large_objects() == database.large_objects {
        Ok(())
    } else {
        Err(ExportError::Inconsistent(format!(
            "the archive has {} large objects, and the backup counted {}",
            summary.large_objects(),
            database.large_objects
        )))
    }
}

/// How `pg_restore` loads the rows of a table.
struct Load<'a> {
    database: &'a DatabaseManifest,
    relation: &'a RelationManifest,
    rows: &'a ChunkedRows,
    archive_encoding: Option<&'a str>,
}

impl Load<'_> {
    /// The entry, as pg_dump writes one (`dumpTableData`).
    fn entry(&self, dump_id: i32, definition: Option<&TocEntry>) -> TocEntry {
        let relation = self.relation;
        let root = self.unsafe_root();
        let into = root.unwrap_or(relation);
        let into = qualified(&into.schema, &into.name);
        TocEntry {
            dump_id,
            has_data: true,
            catalog_table_oid: 0,
            catalog_oid: relation.oid,
            tag: Some(relation.name.as_str().into()),
            description: "TABLE DATA".into(),
            section: Section::Data,
            // This comment keeps `pg_restore -j` from truncating the table first. A line break in a name must not
            // end it.
            definition: root.map(|_| {
                Text::from(format!(
                    "-- load via partition root {}",
                    into.replace(['\n', '\r'], " ")
                ))
            }),
            drop_statement: None,
            copy_statement: Some(self.statement(&into).into()),
            schema: Some(relation.schema.as_str().into()),
            tablespace: None,
            table_access_method: None,
            relation_kind: 0,
            owner: Some(relation.owner.as_str().into()),
            with_oids: Some("false".into()),
            dependencies: definition.map(|entry| entry.dump_id).into_iter().collect(),
        }
    }

    fn statement(&self, into: &str) -> String {
        let columns: Vec<_> = self.rows.columns.iter().map(|column| identifier(column)).collect();
        let columns = if columns.is_empty() {
            String::new()
        } else {
            format!(" ({})", columns.join(", "))
        };
        let encoding = if self.archive_encoding == Some(self.rows.client_encoding.as_str()) {
            String::new()
        } else {
            format!(" WITH (ENCODING {})", literal(&self.rows.client_encoding))
        };
        let settings = if self.may_hold_money() {
            "SET LOCAL lc_monetary = 'C'; "
        } else {
            ""
        };
        format!("{settings}COPY {into}{columns} FROM stdin{encoding};\n")
    }

    /// Text of money reads by `lc_monetary`. What was binary is printed with `C`; a type of the user may be made of it.
    fn may_hold_money(&self) -> bool {
        self.rows.format == RowFormat::Binary
            && self.relation.columns.iter().any(|column| {
                self.rows.columns.contains(&column.name)
                    && (column.data_type.starts_with("money") || column.data_type.contains('.'))
            })
    }

    /// The topmost table of the partitions that it belongs to, where one above it divides rows by a hash that another
    /// server may compute otherwise.
    fn unsafe_root(&self) -> Option<&RelationManifest> {
        let mut above: Vec<&RelationManifest> = Vec::new();
        let mut at = self.relation;
        while let Some(parent) = self
            .parent(at)
            .filter(|parent| !above.iter().any(|seen| seen.oid == parent.oid))
        {
            above.push(parent);
            at = parent;
        }
        let is_unsafe = above.iter().any(|table| has_unsafe_hash(table));
        above.pop().filter(|_| is_unsafe)
    }

    fn parent(&self, of: &RelationManifest) -> Option<&RelationManifest> {
        let part = of.partitioning.as_ref()?;
        let (schema, name) = (part.parent_schema.as_ref()?, part.parent_name.as_ref()?);
        let mut relations = self.database.relations.iter();
        relations.find(|relation| relation.schema == *schema && relation.name == *name)
    }
}

fn has_unsafe_hash(table: &RelationManifest) -> bool {
    let key = table.partitioning.as_ref().and_then(|part| part.key.as_deref());
    let Some(keys) = key.and_then(|key| key.strip_prefix("HASH (")?.strip_suffix(')')) else {
        return false;
    };
    !keys.split(", ").all(|key| {
        let plain = |name: &str| key == name || key == identifier(name);
        let mut columns = table.columns.iter();
        columns.any(|column| plain(&column.name) && SAFELY_HASHED.contains(&column.data_type.as_str()))
    })
}

#[cfg(test)]
mod tests;
