//! Proof that an archive holds what the catalogs say it should: by OID, never by name.

use std::collections::{BTreeMap, BTreeSet};

use super::relations::Relation;
use super::selection::Selection;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::archive::{DataSummary, Toc, TocEntry};

/// OID of `pg_class`, the catalog of relations.
const PG_CLASS: u32 = 1259;

/// Descriptions of entries that define a relation other than a sequence.
const DEFINITIONS: [&str; 4] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"];

/// Rows by the OID of their table.
pub(super) type RowCounts = BTreeMap<u32, u64>;

/// Holds the table of contents against the relations that the snapshot sees.
pub(super) fn check_contents(toc: &Toc, selection: &Selection<'_>, relations: &[Relation]) -> Result<(), Refusal> {
    let defined: BTreeSet<u32> = toc
        .entries
        .iter()
        .filter(|entry| defines_relation(entry))
        .map(|entry| entry.catalog_oid)
        .collect();
    let with_rows: BTreeSet<u32> = toc
        .entries
        .iter()
        .filter(|entry| is_table_data(entry))
        .map(|entry| entry.catalog_oid)
        .collect();
    for relation in relations.iter().filter(|relation| relation.kind != "S") {
        match (selection.defines(relation), defined.contains(&relation.oid)) {
            (true, false) => return Err(incomplete(relation, "its definition is missing from the archive")),
            (false, true) => {
                return Err(incomplete(
                    relation,
                    "its definition is in the archive, where it should not be",
                ));
            }
            (true, true) | (false, false) => {}
        }
        let (must, may) = (selection.stores_rows(relation), selection.may_store_rows(relation));
        match with_rows.contains(&relation.oid) {
            false if must => return Err(incomplete(relation, "its rows are missing from the archive")),
            true if !may => {
                return Err(incomplete(
                    relation,
                    "its rows are in the archive, where they should not be",
                ));
            }
            true | false => {}
        }
    }
    let known: BTreeSet<u32> = relations.iter().map(|relation| relation.oid).collect();
    match defined.union(&with_rows).find(|oid| !known.contains(oid)) {
        None => Ok(()),
        Some(oid) => Err(Refusal::temporary(
            reasons::DEFINITIONS_CHANGED,
            format!("The archive holds the relation with OID {oid}, which the snapshot does not have."),
        )),
    }
}

/// Rows of every table, from the blocks that went by. Each entry with rows must have had its one block.
pub(super) fn row_counts(toc: &Toc, summary: &DataSummary) -> Result<RowCounts, Refusal> {
    let mut blocks: BTreeMap<i32, Option<u64>> =
        summary.blocks.iter().map(|block| (block.dump_id, block.rows)).collect();
    let mut counts = RowCounts::new();
    for entry in toc.entries.iter().filter(|entry| is_table_data(entry)) {
        let rows = blocks.remove(&entry.dump_id).flatten().ok_or_else(|| {
            Refusal::temporary(
                reasons::DUMP_FAILED,
                format!("The archive has no rows for its entry {}.", entry.label()),
            )
            .object(entry.label())
        })?;
        *counts.entry(entry.catalog_oid).or_default() += rows;
    }
    Ok(counts)
}

fn defines_relation(entry: &TocEntry) -> bool {
    entry.catalog_table_oid == PG_CLASS
        && entry
            .description
            .to_str()
            .is_some_and(|text| DEFINITIONS.contains(&text))
}

fn is_table_data(entry: &TocEntry) -> bool {
    entry.description.to_str() == Some("TABLE DATA")
}

fn incomplete(relation: &Relation, what: &str) -> Refusal {
    let name = relation.qualified();
    Refusal::temporary(
        reasons::DUMP_FAILED,
        format!("The archive is not what it should be: of {name}, {what}."),
    )
    .object(name)
    .hint("The next attempt dumps again; if it ends like this too, report it with the table's definition.")
}
