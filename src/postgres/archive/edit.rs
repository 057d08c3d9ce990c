//! Changes to a table of contents that keep it sound.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Section, TocEntry};
use super::text::Text;
use super::toc::Toc;

impl Toc {
    /// The table of contents without what carries rows and large objects: an archive of its own, which serves
    /// `pg_restore --section=pre-data` and `--section=post-data`, also in parallel and from a memory file.
    #[must_use]
    pub fn without_data(&self) -> Self {
        let mut toc = self.clone();
        toc.remove(|entry| entry.has_data);
        toc
    }

    /// Removes entries, and returns how many. What depended on one of them depends on what that one depended on.
    pub fn remove(&mut self, mut which: impl FnMut(&TocEntry) -> bool) -> usize {
        let mut removed = BTreeMap::new();
        self.entries.retain(|entry| {
            let goes = which(entry);
            if goes {
                removed.insert(entry.dump_id, entry.dependencies.clone());
            }
            !goes
        });
        if !removed.is_empty() {
            for entry in &mut self.entries {
                if entry.dependencies.iter().any(|id| removed.contains_key(id)) {
                    entry.dependencies = bridged(&entry.dependencies, &removed);
                }
            }
        }
        removed.len()
    }

    /// Adds a statement right behind another entry, in the same section, after which it is run; returns its number.
    pub fn add_after(&mut self, dump_id: i32, description: &str, tag: &str, definition: &str) -> Option<i32> {
        let position = self.entries.iter().position(|entry| entry.dump_id == dump_id)?;
        let after = &self.entries[position];
        let number = self.entries.iter().map(|entry| entry.dump_id).max()?.checked_add(1)?;
        let entry = TocEntry {
            dump_id: number,
            has_data: false,
            catalog_table_oid: 0,
            catalog_oid: 0,
            tag: Some(tag.into()),
            description: description.into(),
            section: after.section,
            definition: Some(definition.into()),
            drop_statement: Some(Text::default()),
            copy_statement: None,
            schema: None,
            tablespace: None,
            table_access_method: None,
            relation_kind: 0,
            owner: after.owner.clone(),
            with_oids: Some("false".into()),
            dependencies: vec![dump_id],
        };
        self.entries.insert(position + 1, entry);
        Some(number)
    }

    /// These entries, and what they depend on, directly or not.
    #[must_use]
    pub fn needed(&self, dump_ids: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
        let entries: BTreeMap<i32, &TocEntry> = self.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        let mut needed = BTreeSet::new();
        let mut open: Vec<i32> = dump_ids.into_iter().collect();
        while let Some(dump_id) = open.pop() {
            if let Some(entry) = entries.get(&dump_id).filter(|_| needed.insert(dump_id)) {
                open.extend(&entry.dependencies);
            }
        }
        needed
    }

    /// Encoding of every text of the archive, as `SET client_encoding` of its first entry names it.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        self.setting("ENCODING")
    }

    /// Whether backslashes in `'…'` of the archive's statements are ordinary characters. They are, unless the dumped
    /// database had `standard_conforming_strings` off.
    #[must_use]
    pub fn standard_conforming_strings(&self) -> bool {
        self.setting("STDSTRINGS") != Some("off")
    }

    fn setting(&self, description: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.description == description)?;
        let definition = entry.definition.as_ref()?.to_str()?;
        definition.split('\'').nth(1)
    }

    /// The entries of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &TocEntry> {
        self.entries.iter().filter(move |entry| entry.section == section)
    }
}

/// `dependencies` with each removed entry replaced by what stays of its own, without doubles.
fn bridged(dependencies: &[i32], removed: &BTreeMap<i32, Vec<i32>>) -> Vec<i32> {
    let mut bridged = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<i32> = dependencies.iter().rev().copied().collect();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        match removed.get(&id) {
            Some(behind) => open.extend(behind.iter().rev()),
            None => bridged.push(id),
        }
    }
    bridged
}

#[cfg(test)]
mod tests {
    use super::super::sample::{entry, toc};
    use super::*;

    fn example() -> Toc {
        let mut rows = entry(12, "TABLE DATA", "t", "").needs(&[11]);
        rows.has_data = true;
        toc([
            entry(10, "SCHEMA", "s", "CREATE SCHEMA s;\n"),
            entry(11, "TABLE", "t", "CREATE TABLE s.t ();\n").needs(&[10]),
            rows,
            entry(13, "INDEX", "i", "CREATE INDEX i ON s.t ();\n").needs(&[12, 11]),
        ])
    }

    #[test]
    fn what_depended_on_a_removed_entry_depends_on_what_that_one_needed() {
        let mut toc = example();
        assert_eq!(toc.remove(|entry| entry.dump_id == 11 || entry.dump_id == 12), 2);
        assert_eq!(toc.entry(13).unwrap().dependencies, [10]);
        assert_eq!(example().without_data().entry(13).unwrap().dependencies, [11]);
    }

    #[test]
    fn a_circle_of_removed_entries_ends() {
        let mut toc = toc([
            entry(10, "TABLE", "a", "").needs(&[11]),
            entry(11, "TABLE", "b", "").needs(&[10]),
            entry(12, "VIEW", "v", "").needs(&[10]),
        ]);
        toc.remove(|entry| entry.description == "TABLE");
        assert!(toc.entry(12).unwrap().dependencies.is_empty());
    }

    #[test]
    fn an_added_statement_follows_its_entry_under_a_number_of_its_own() {
        let mut toc = example();
        let added = toc
            .add_after(11, "COMMENT", "TABLE t", "COMMENT ON TABLE s.t IS 'x';\n")
            .unwrap();
        assert_eq!(added, 14);
        let order: Vec<_> = toc.entries.iter().map(|entry| entry.dump_id).collect();
        assert_eq!(order, [1, 2, 10, 11, 14, 12, 13]);
        assert_eq!(toc.add_after(99, "COMMENT", "x", ""), None);
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let mut toc = example();
        toc.entries[3].tag = Some(vec![b'a', 0xFF, b'"'].into());
        toc.entries[3].owner = None;
        toc.entries[3].schema = Some("".into());
        assert_eq!(Toc::read(&mut toc.to_bytes().as_slice()).unwrap(), toc);
    }
}
