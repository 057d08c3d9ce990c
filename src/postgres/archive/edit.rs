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
