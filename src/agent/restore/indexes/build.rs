//! Which entries of an archive build an index over rows, and with which statements. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::order;
use crate::agent::restore::build_limits::BuildLimits;
use crate::agent::restore::count_rows::Table;
use crate::agent::restore::statements::Statements;
use crate::postgres::archive::{Section, Text, Toc, TocEntry};
use crate::postgres::quote::identifier;
use crate::store::manifest::RelationManifest;

/// Memory in which one process sorts the rows of a B-tree, in KiB. Sorting jumps through memory: with more of it than
/// the processor's caches hold, that takes longer than to write sorted pieces and to merge them. Rows that are in order
/// have nothing to jump for (`pg_qsort` looks first), and with memory for all there is nothing to merge. With less than
/// this, PostgreSQL takes no parallel workers (`plan_create_index_workers` in `planner.c`).
const SORT_KIB: u64 = 32 * 1024;

/// An entry that builds an index: `CREATE INDEX`, or `ALTER TABLE … ADD CONSTRAINT` of a constraint that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexBuild {
    /// Number of the entry.
    pub dump_id: i32,
    /// The entry in a few words.
    pub label: String,
    /// The table by schema and name.
    pub table: Table,
    /// Name of the index.
    pub index: String,
    /// Whether it keeps all other builds away from the table, as `ALTER TABLE` does.
    pub locks_table: bool,
    /// Stands for the time that it takes.
    pub cost: u64,
    /// What the server is asked before: whether the rows are in its order, where they fill more than [`SORT_KIB`].
    pub order_question: Option<String>,
    b_tree: bool,
    tablespace: Option<String>,
    definition: String,
}

/// Bytes of a row in an index whose size the manifest does not know.
const BYTES_OF_A_ROW: u64 = 20;

/// Bytes of a table that are read in the time in which one byte of its index is sorted and written: 9 in measurements of
/// four indexes over one table.
const READ_FOR_ONE_WRITTEN: u64 = 8;

/// The indexes of tables that have rows, as far as nothing else of post-data has to come before. The others are left to
/// `pg_restore`, with those whose statements a session in UTF-8 cannot send as they are.
pub(super) fn of_archive(toc: &Toc, relations: &[RelationManifest]) -> Vec<IndexBuild> {
    let filled: BTreeMap<Table, &RelationManifest> = relations
        .iter()
        .filter(|relation| relation.rows.is_some_and(|rows| rows > 0))
        .map(|relation| ((relation.schema.clone(), relation.name.clone()), relation))
        .collect();
    let late: BTreeSet<i32> = toc.section(Section::PostData).map(|entry| entry.dump_id).collect();
    toc.section(Section::PostData)
        .filter(|entry| ["INDEX", "CONSTRAINT"].iter().any(|kind| entry.description == *kind))
        .filter(|entry| !entry.dependencies.iter().any(|needed| late.contains(needed)))
        .filter_map(|entry| IndexBuild::of_entry(entry, toc, &filled))
        .collect()
}

impl IndexBuild {
    fn of_entry(entry: &TocEntry, toc: &Toc, filled: &BTreeMap<Table, &RelationManifest>) -> Option<Self> {
        let in_utf8 = |text: &Text| {
            let text = text.to_str()?;
            (toc.encoding() == Some("UTF8") || text.is_ascii()).then(|| text.to_owned())
        };
        let definition = in_utf8(entry.definition.as_ref()?)?;
        let tablespace = match &entry.tablespace {
            Some(tablespace) => Some(in_utf8(tablespace)?),
            None => None,
        };
        let label = entry.label();
        let statements = Statements::parse(&label, &definition, toc.standard_conforming_strings()).ok()?;
        let made = statements.index_made_first()?;
        let table = filled.get(&made.table)?;
        let index = table.indexes.iter().find(|index| index.name == made.name);
        let bytes = index.and_then(|index| index.bytes);
        let bytes = bytes.unwrap_or(table.rows.unwrap_or_default() * BYTES_OF_A_ROW);
        let order_question = match (made.first_column, table.table_bytes) {
            (Some(column), Some(table_bytes)) if made.b_tree && bytes > SORT_KIB * 1024 => {
                Some(order::question(&made.table, &column, table_bytes))
            }
            _ => None,
        };
        Some(Self {
            dump_id: entry.dump_id,
            label,
            table: made.table,
            index: made.name,
            locks_table: made.constraint,
            cost: bytes + table.table_bytes.unwrap_or_default() / READ_FOR_ONE_WRITTEN,
            b_tree: made.b_tree,
            order_question,
            tablespace,
            definition,
        })
    }

    #[cfg(test)]
    pub(super) fn sample(dump_id: i32, table: &str, cost: u64, constraint: bool) -> Self {
        Self {
            dump_id,
            label: String::new(),
            table: ("s".into(), table.into()),
            index: format!("i{dump_id}"),
            locks_table: constraint,
            cost,
            b_tree: true,
            order_question: None,
            tablespace: None,
            definition: String::new(),
        }
    }

    /// What builds it with so many parallel workers: one simple query, so one transaction. `in_order`: so are the rows.
    pub(super) fn sql(&self, limits: BuildLimits, workers: u64, in_order: bool) -> String {
        let memory = if self.b_tree && !in_order {
            limits.memory_kib.min(SORT_KIB * (workers + 1))
        } else {
            limits.memory_kib
        };
        // As `_selectTablespace` of pg_backup_archiver.c.
        let tablespace = match self.tablespace.as_deref() {
            None => String::new(),
            Some("") => "SET LOCAL default_tablespace = '';\n".to_owned(),
            Some(tablespace) => format!("SET LOCAL default_tablespace = {};\n", identifier(tablespace)),
        };
        format!(
            "SET LOCAL maintenance_work_mem = '{memory}kB';\nSET LOCAL max_parallel_maintenance_workers = {workers};\n{tablespace}{}",
            self.definition
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::sample::{entry, toc};
    use crate::store::manifest::IndexManifest;

    const LIMITS: BuildLimits = BuildLimits {
        memory_kib: 262_144,
        parallel_workers: 2,
    };

    fn post(dump_id: i32, description: &str, definition: &[u8]) -> TocEntry {
        TocEntry {
            section: Section::PostData,
            definition: Some(definition.to_vec().into()),
            ..entry(dump_id, description, "tag", "")
        }
    }

    fn relations() -> Vec<RelationManifest> {
        let relation = |name: &str, rows, index: &str, bytes: Option<u64>| RelationManifest {
            schema: "s".into(),
            name: name.into(),
            rows: Some(rows),
            table_bytes: bytes.map(|bytes| 8 * bytes),
            indexes: vec![IndexManifest {
                name: index.into(),
                bytes,
                ..IndexManifest::default()
            }],
            ..RelationManifest::default()
        };
        vec![
            relation("t", 10, "i.\u{e9}", Some(8192)),
            relation("sm.\"all", 20, "p", None),
            relation("empty", 0, "a", Some(8192)),
        ]
    }

    fn of(entries: impl IntoIterator<Item = TocEntry>) -> Vec<IndexBuild> {
        of_archive(&toc(entries), &relations())
    }

    #[test]
    fn an_index_is_known_by_its_statement() {
        let index = "CREATE UNIQUE INDEX \"i.\u{e9}\" ON s.t USING btree (lower(a) DESC) WHERE (a > 'x; y'::text);\n\nALTER TABLE s.t CLUSTER ON \"i.\u{e9}\";\n";
        let primary = "ALTER TABLE ONLY s.\"sm.\"\"all\"\n    ADD CONSTRAINT p PRIMARY KEY (id);\n";
        let found = of([
            post(10, "INDEX", index.as_bytes()),
            post(11, "CONSTRAINT", primary.as_bytes()),
        ]);
        let [index, primary] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((index.table.1.as_str(), index.index.as_str()), ("t", "i.\u{e9}"));
        assert_eq!(
            (index.cost, index.locks_table, index.label.as_str()),
            (2 * 8192, false, "INDEX tag")
        );
        assert_eq!((primary.table.1.as_str(), primary.index.as_str()), ("sm.\"all", "p"));
        assert_eq!((primary.cost, primary.locks_table), (400, true));
    }

    #[test]
    fn a_b_tree_has_so_much_memory_for_each_process_and_no_more_than_the_session() {
        let memory = |definition: &str, memory_kib, workers| {
            let builds = of([post(10, "INDEX", definition.as_bytes())]);
            let limits = BuildLimits { memory_kib, ..LIMITS };
            let in_order = builds[0].sql(limits, workers, true);
            assert!(
                in_order.contains(&format!("maintenance_work_mem = '{memory_kib}kB'")),
                "{in_order}"
            );
            let sql = builds[0].sql(limits, workers, false);
            assert!(sql.ends_with(&format!("_workers = {workers};\n{definition}")), "{sql}");
            sql.split('\'').nth(1).unwrap().to_owned()
        };
        let b_trees = [
            "CREATE INDEX a ON ONLY s.t USING btree (a)",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (id) INCLUDE (b)",
        ];
        for definition in b_trees {
            assert_eq!(memory(definition, 262_144, 0), "32768kB");
            assert_eq!(memory(definition, 524_288, 8), "294912kB");
            assert_eq!(memory(definition, 131_072, 8), "131072kB");
        }
        let others = [
            "CREATE INDEX g ON s.t USING gin (a)",
            "CREATE INDEX h ON s.t USING \"another one\" (a)",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT e EXCLUDE USING gist (a WITH =)",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT w PRIMARY KEY (a, b WITHOUT OVERLAPS)",
        ];
        for definition in others {
            assert_eq!(memory(definition, 262_144, 0), "262144kB");
        }
    }

    #[test]
    fn the_order_of_rows_is_asked_for_where_it_decides() {
        let asks = |bytes, definition: &str| {
            let mut relations = relations();
            relations[0].indexes[0].bytes = Some(bytes);
            let build = of_archive(&toc([post(10, "INDEX", definition.as_bytes())]), &relations).remove(0);
            build.order_question
        };
        let large = SORT_KIB * 1024 + 1;
        let plain = "CREATE INDEX \"i.\u{e9}\" ON s.t USING btree (a, lower(b) DESC) WHERE c";
        let key = "ALTER TABLE s.t ADD CONSTRAINT \"i.\u{e9}\" PRIMARY KEY (a, b)";
        for definition in [plain, key] {
            let question = asks(large, definition).unwrap();
            assert!(
                question.contains("ORDER BY \"a\"") && question.contains("\"s\".\"t\""),
                "{question}"
            );
            assert_eq!(asks(large - 1, definition), None);
        }
        let others = [
            "btree (lower(a))",
            "btree (a DESC)",
            "btree (a NULLS FIRST)",
            "btree (a text_pattern_ops)",
        ];
        for elements in others.iter().chain(&["btree (a COLLATE \"C\")", "gist (a)"]) {
            let definition = format!("CREATE INDEX \"i.\u{e9}\" ON s.t USING {elements}");
            assert_eq!(asks(large, &definition), None, "{definition}");
        }
    }

    #[test]
    fn what_another_entry_comes_before_or_has_no_rows_or_builds_nothing_is_left() {
        let index = b"CREATE INDEX a ON s.t USING btree (a)";
        let left: [&[u8]; 6] = [
            b"CREATE INDEX broken",
            b"CREATE INDEX a ON s.empty USING btree (a)",
            b"CREATE INDEX \"\xe9\" ON s.t USING btree (a)",
            b"ALTER TABLE s.t ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID",
            b"ALTER TABLE s.t ADD CONSTRAINT p PRIMARY KEY USING INDEX a",
            b"ALTER TABLE ONLY s.t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(a)",
        ];
        for definition in left {
            assert_eq!(of([post(10, "CONSTRAINT", definition)]), [], "{definition:?}");
        }
        let found = of([
            entry(9, "TABLE", "t", ""),
            post(10, "STATISTICS", b""),
            post(11, "INDEX", index).needs(&[9]),
            post(12, "INDEX", index).needs(&[9, 10]),
            post(13, "FK CONSTRAINT", index),
        ]);
        assert_eq!(found.iter().map(|build| build.dump_id).collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn of_an_archive_in_another_encoding_only_ascii_is_sent() {
        let mut toc = toc([
            post(10, "INDEX", b"CREATE INDEX a ON s.t USING btree (a)"),
            post(11, "INDEX", "CREATE INDEX \u{e9} ON s.t USING btree (a)".as_bytes()),
        ]);
        assert_eq!(of_archive(&toc, &relations()).len(), 2);
        toc.entries[0].definition = Some("SET client_encoding = 'LATIN1';\n".into());
        assert_eq!(of_archive(&toc, &relations()).len(), 1);
    }

    #[test]
    fn an_index_is_built_in_its_tablespace() {
        let sql = |tablespace: Option<&str>| {
            let index = TocEntry {
                tablespace: tablespace.map(Into::into),
                ..post(10, "INDEX", b"CREATE INDEX a ON s.t USING btree (a)")
            };
            of([index])[0].sql(LIMITS, 1, false)
        };
        assert!(!sql(None).contains("tablespace"));
        assert!(sql(Some("")).contains("SET LOCAL default_tablespace = '';\nCREATE"));
        assert!(sql(Some("the \"fast\" one")).contains("default_tablespace = \"the \"\"fast\"\" one\";\nCREATE"));
    }
}
