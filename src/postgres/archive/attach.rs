//! The order in which `pg_restore --jobs` attaches the indexes of partitions.

use std::collections::BTreeSet;

use super::entry::Section;
use super::toc::Toc;

const ATTACH: &str = "INDEX ATTACH";

impl Toc {
    /// Has the indexes of partitions attached one after another, all of them behind the indexes that are attached, and
    /// before triggers, foreign keys and whatever else of post-data locks more than one table.
    ///
    /// `ALTER INDEX … ATTACH PARTITION` locks from a partition up to its root as it makes indexes valid
    /// (`validatePartitionedIndex` in tablecmds.c), and the others lock from the root down. `pg_restore --jobs` does not
    /// know this (`identify_locking_dependencies` in `pg_backup_archiver.c`): now and then it ended in a deadlock or left
    /// the index of a root invalid, seen with 12.
    pub fn attach_indexes_in_turn(&mut self) {
        let attaching = || self.entries.iter().filter(|entry| entry.description == ATTACH);
        let Some(last) = attaching().next_back().map(|entry| entry.dump_id) else {
            return;
        };
        let indexes: BTreeSet<i32> = attaching()
            .flat_map(|entry| entry.dependencies.iter().copied())
            .collect();
        let needed = self.needed(indexes.iter().copied());
        let mut before = None;
        for entry in &mut self.entries {
            if entry.description == ATTACH {
                match before.replace(entry.dump_id) {
                    Some(before) => entry.dependencies.push(before),
                    None => entry.dependencies = indexes.iter().copied().collect(),
                }
            } else if entry.section == Section::PostData
                && entry.description != "INDEX"
                && entry.description != "CONSTRAINT"
                && !needed.contains(&entry.dump_id)
            {
                entry.dependencies.push(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TocEntry;
    use super::super::sample::{entry, toc};
    use super::*;

    fn post(number: i32, description: &str, dependencies: &[i32]) -> TocEntry {
        let mut entry = entry(number, description, "x", "SELECT 1;\n").needs(dependencies);
        entry.section = Section::PostData;
        entry
    }

    #[test]
    fn indexes_are_attached_in_turn_and_before_what_locks_several_tables() {
        let mut toc = toc([
            post(10, "INDEX", &[1]),
            post(11, "CONSTRAINT", &[2]),
            post(12, "INDEX", &[3]),
            post(13, "INDEX", &[9]),
            post(20, "INDEX ATTACH", &[11, 10]),
            post(21, "INDEX ATTACH", &[12, 11]),
            post(30, "TRIGGER", &[1]),
            post(31, "FK CONSTRAINT", &[2, 13]),
        ]);
        toc.attach_indexes_in_turn();
        let of = |id| toc.entry(id).unwrap().dependencies.clone();
        assert_eq!(of(20), [10, 11, 12]);
        assert_eq!(of(21), [12, 11, 20]);
        assert_eq!(of(30), [1, 21]);
        assert_eq!(of(31), [2, 13, 21]);
        assert_eq!([of(10), of(11), of(12), of(13)], [[1], [2], [3], [9]]);
    }

    #[test]
    fn what_an_attached_index_needs_does_not_wait_for_it() {
        let mut toc = toc([
            post(10, "STATISTICS", &[]),
            post(11, "INDEX", &[10]),
            post(12, "INDEX ATTACH", &[11]),
        ]);
        toc.attach_indexes_in_turn();
        assert!(toc.entry(10).unwrap().dependencies.is_empty());
    }

    #[test]
    fn an_archive_without_partitions_stays_as_it_is() {
        let mut toc = toc([post(10, "INDEX", &[1]), post(11, "TRIGGER", &[1])]);
        let before = toc.clone();
        toc.attach_indexes_in_turn();
        assert_eq!(toc.to_bytes(), before.to_bytes());
    }
}
