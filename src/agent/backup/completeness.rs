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

/// Holds the table of contents against the relations that the snapshot sees. The rows of `chunked` tables are stored
/// beside the archive: in it they would come back twice.
pub(super) fn check_contents(
    toc: &Toc,
    selection: &Selection<'_>,
    chunked: &BTreeSet<u32>,
    relations: &[Relation],
) -> Result<(), Refusal> {
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
        let beside = chunked.contains(&relation.oid);
        let (must, may) = (
            selection.stores_rows(relation) && !beside,
            selection.may_store_rows(relation) && !beside,
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::backup::{BackupPlan, Sections};
    use crate::postgres::archive::DataBlock;
    use crate::postgres::archive::sample;

    fn plan() -> BackupPlan {
        serde_json::from_value(serde_json::json!({
            "run": {"kind": "PgBackup", "namespace": "n", "name": "n", "uid": "u", "generation": 1,
                    "created": "2026-01-02T03:04:05Z", "deadlineSeconds": null},
            "connection": {"parameters": {}}, "databases": "ofConnection", "storage": {"folder": {"path": "/x"}},
            "sections": "all", "schemas": "all", "tables": "all", "excludeTableData": [],
            "unloggedTableData": "Exclude", "compression": null, "foreignCredentials": "Strip",
            "rolePasswords": "Keep", "dryRun": false
        }))
        .unwrap()
    }

    fn table(oid: u32, name: &str) -> Relation {
        Relation {
            oid,
            schema: "public".into(),
            name: name.into(),
            kind: "r".into(),
            ..Relation::default()
        }
    }

    fn definition(dump_id: i32, oid: u32) -> TocEntry {
        let mut entry = sample::entry(dump_id, "TABLE", "t", "CREATE TABLE t ()");
        (entry.catalog_table_oid, entry.catalog_oid) = (PG_CLASS, oid);
        entry
    }

    fn data(dump_id: i32, oid: u32) -> TocEntry {
        let mut entry = sample::entry(dump_id, "TABLE DATA", "t", "");
        (entry.catalog_oid, entry.has_data) = (oid, true);
        entry
    }

    fn checked(plan: &BackupPlan, entries: Vec<TocEntry>, relations: &[Relation]) -> Result<(), String> {
        let selection = Selection::of_plan(plan, relations);
        check_contents(&sample::toc(entries), &selection, &BTreeSet::new(), relations)
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn an_archive_that_differs_from_the_catalogs_in_one_table_is_refused() {
        let relations = [table(100, "a"), table(101, "b")];
        let whole = || vec![definition(10, 100), data(11, 100), definition(12, 101), data(13, 101)];
        assert_eq!(checked(&plan(), whole(), &relations), Ok(()));
        for missing in 0..4 {
            let mut entries = whole();
            entries.remove(missing);
            assert!(checked(&plan(), entries, &relations).unwrap_err().contains("missing"));
        }
        assert!(checked(&plan(), whole(), &relations[..1]).unwrap_err().contains("101"));
    }

    #[test]
    fn rows_are_in_the_archive_or_beside_it_and_never_in_both_places_or_none() {
        let relations = [table(100, "a"), table(101, "b")];
        let plan = plan();
        let selection = Selection::of_plan(&plan, &relations);
        let checked = |with_rows: &[u32], chunked: &[u32]| {
            let mut entries = vec![definition(10, 100), definition(12, 101)];
            entries.extend(with_rows.iter().map(|oid| data(i32::try_from(*oid).unwrap(), *oid)));
            let chunked = chunked.iter().copied().collect();
            check_contents(&sample::toc(entries), &selection, &chunked, &relations).map_err(|refusal| refusal.message)
        };
        assert_eq!(checked(&[100], &[101]), Ok(()));
        assert_eq!(checked(&[], &[100, 101]), Ok(()));
        assert!(checked(&[100, 101], &[101]).unwrap_err().contains("should not be"));
        assert!(checked(&[100], &[]).unwrap_err().contains("missing"));
    }

    #[test]
    fn rows_that_should_have_been_left_out_are_refused() {
        let unlogged = Relation {
            unlogged: true,
            ..table(100, "a")
        };
        let entries = || vec![definition(10, 100), data(11, 100)];
        assert!(
            checked(&plan(), entries(), &[unlogged])
                .unwrap_err()
                .contains("should not be")
        );
        let schema_only = BackupPlan {
            sections: Sections::Schema,
            ..plan()
        };
        assert!(
            checked(&schema_only, entries(), &[table(100, "a")])
                .unwrap_err()
                .contains("should not be")
        );
    }

    #[test]
    fn every_table_has_its_own_rows_counted_and_none_goes_without() {
        let toc = sample::toc(vec![definition(10, 100), data(11, 100), data(13, 101)]);
        let block = |dump_id, rows| DataBlock {
            dump_id,
            rows,
            large_objects: 0,
            bytes: 0,
            stored_bytes: 0,
            offset: 0,
        };
        let counted = |blocks| row_counts(&toc, &DataSummary { blocks });
        let both = counted(vec![block(13, Some(7)), block(11, Some(0))]).unwrap();
        assert_eq!(both, RowCounts::from([(100, 0), (101, 7)]));
        assert!(
            counted(vec![block(13, Some(7))])
                .unwrap_err()
                .message
                .contains("TABLE DATA")
        );
        assert!(counted(vec![block(13, Some(7)), block(11, None)]).is_err());
    }
}
