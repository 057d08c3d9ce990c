//! Where the rows of each relation go: into the table itself, or through the root of its partitions where another
//! server may put a row into another partition. The definitions that were just restored decide.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

/// A table by schema and name.
pub(super) type Name = (String, String);

/// A table of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetTable {
    /// Whether a crash of the server empties it.
    pub unlogged: bool,
    /// The table that it is a partition of.
    pub parent: Option<Name>,
    /// Whether its rows are divided by hashes that may differ between servers.
    pub unsafe_hash: bool,
    /// Whether its rows are in a heap; nothing is in a partitioned table itself.
    pub heap: bool,
}

/// Tables of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetTables(BTreeMap<Name, TargetTable>);

/// Hashes of built-in types without a collation depend on the value alone. Those of enums depend on OIDs, those of
/// texts on the encoding and, for some collations, on the version of the library; of other types nobody knows.
const TABLES: &str = "
SELECT n.nspname::text, c.relname::text, c.relpersistence = 'u', pn.nspname::text, p.relname::text,
    EXISTS (SELECT FROM pg_partitioned_table k, unnest(k.partattrs::int2[]) AS key (attnum)
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.attnum AND key.attnum <> 0
        LEFT JOIN pg_type t ON t.oid = a.atttypid
        WHERE k.partrelid = c.oid AND k.partstrat = 'h'
          AND (t.oid IS NULL OR t.typtype <> 'b' OR t.typcollation <> 0 OR t.oid >= 16384 OR t.typname IN ('jsonb', 'record'))),
    m.amname IS NOT DISTINCT FROM 'heap' AND c.relkind = 'r'
FROM pg_class c LEFT JOIN pg_am m ON m.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
LEFT JOIN pg_class p ON p.oid = i.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

impl TargetTables {
    /// Reads the catalogs.
    pub(super) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let rows = client.query(TABLES, &[]).await?;
        let mut tables = BTreeMap::new();
        for row in &rows {
            let parent: (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
            let table = TargetTable {
                unlogged: row.try_get(2)?,
                parent: parent.0.zip(parent.1),
                unsafe_hash: row.try_get(5)?,
                heap: row.try_get(6)?,
            };
            tables.insert((row.try_get(0)?, row.try_get(1)?), table);
        }
        Ok(Self(tables))
    }

    /// The table of this name.
    pub(super) fn get(&self, name: &Name) -> Option<&TargetTable> {
        self.0.get(name)
    }

    /// The topmost table of the partitions that it belongs to; itself where it is no partition.
    pub(super) fn root(&self, name: &Name) -> Name {
        self.ancestors(name).last().unwrap_or(name).clone()
    }

    /// Where its rows go first: rows that the table itself refuses go through the root afterwards.
    pub(super) fn destination(&self, name: &Name) -> Name {
        let unsafe_hash = self
            .ancestors(name)
            .any(|above| self.get(above).is_some_and(|table| table.unsafe_hash));
        if unsafe_hash { self.root(name) } else { name.clone() }
    }

    fn ancestors<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a Name> {
        let mut seen = BTreeSet::new();
        let parent = |name: &Name| self.get(name).and_then(|table| table.parent.as_ref());
        std::iter::successors(parent(name), move |above| parent(above)).take_while(move |above| seen.insert(*above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        ("s".into(), name.into())
    }

    #[test]
    fn rows_go_through_the_root_where_any_table_above_divides_them_by_an_unsafe_hash() {
        let table = |parent: Option<&str>, unsafe_hash| TargetTable {
            parent: parent.map(name),
            unsafe_hash,
            ..TargetTable::default()
        };
        let tables = TargetTables(BTreeMap::from([
            (name("alone"), table(None, false)),
            (name("by day"), table(None, false)),
            (name("monday"), table(Some("by day"), true)),
            (name("monday 0"), table(Some("monday"), false)),
            (name("tuesday"), table(Some("by day"), false)),
        ]));
        assert_eq!(tables.destination(&name("alone")), name("alone"));
        assert_eq!(tables.destination(&name("tuesday")), name("tuesday"));
        assert_eq!(tables.destination(&name("monday 0")), name("by day"));
        assert_eq!(tables.root(&name("tuesday")), name("by day"));
        assert_eq!(tables.root(&name("alone")), name("alone"));
    }
}
