//! What each B-tree is built with. Its rows are sorted, which jumps through memory: with more of it than the processor's
//! caches hold, that takes longer than to write sorted pieces and to merge them. Other access methods gain from memory,
//! and keep what the session has.

use super::statements::Statements;
use crate::postgres::archive::{Text, Toc};

/// Memory in which one process sorts the rows of a B-tree, in KiB. With less, PostgreSQL takes no parallel workers
/// (`plan_create_index_workers` in `planner.c`).
const SORT_KIB: u64 = 32 * 1024;

/// Puts the memory of each B-tree before the statement that builds it; `pg_restore` runs both as one transaction.
/// `parallel_workers` are those that the server allows, with which the session shares the memory; `most_kib` is what the
/// session has for other indexes.
pub(super) fn prepare(toc: &mut Toc, parallel_workers: u64, most_kib: u64) {
    let memory = most_kib.min(SORT_KIB * (parallel_workers + 1));
    let setting = format!("SET LOCAL maintenance_work_mem = '{memory}kB';\n");
    let conforming = toc.standard_conforming_strings();
    let kinds = ["INDEX", "CONSTRAINT"];
    for entry in toc
        .entries
        .iter_mut()
        .filter(|entry| kinds.iter().any(|kind| entry.description == *kind))
    {
        let Some(definition) = &entry.definition else { continue };
        let statements = Statements::parse(&entry.label(), &definition.lossy(), conforming);
        if statements.is_ok_and(|statements| statements.begin_with_a_b_tree()) {
            entry.definition = Some(Text::from([setting.as_bytes(), definition.as_bytes()].concat()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::TocEntry;
    use crate::postgres::archive::sample::{entry, toc};

    fn prepared(description: &str, definition: &[u8], parallel_workers: u64, most_kib: u64) -> Vec<u8> {
        let mut toc = toc([TocEntry {
            definition: Some(definition.to_vec().into()),
            ..entry(10, description, "", "")
        }]);
        prepare(&mut toc, parallel_workers, most_kib);
        let definition = toc.entry(10).unwrap().definition.as_ref();
        definition.unwrap().as_bytes().to_vec()
    }

    #[test]
    fn every_b_tree_and_nothing_else_gets_a_setting() {
        let b_trees: [(&str, &[u8]); 4] = [
            ("INDEX", b"CREATE INDEX a ON s.t USING btree (a);\n\nALTER TABLE s.t CLUSTER ON a;\n"),
            ("INDEX", b"CREATE UNIQUE INDEX \"\xe9\" ON ONLY s.t USING btree (lower(\"\xe9\") DESC) WHERE (a > 'x; y'::text);\n"),
            ("CONSTRAINT", b"ALTER TABLE ONLY s.\"sm.\"\"all\"\n    ADD CONSTRAINT p PRIMARY KEY (id);\n"),
            ("CONSTRAINT", b"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (id) INCLUDE (b);\n"),
        ];
        for (description, definition) in b_trees {
            let expected = [b"SET LOCAL maintenance_work_mem = '98304kB';\n", definition].concat();
            assert_eq!(prepared(description, definition, 2, 262_144), expected);
        }
        let others: [(&str, &[u8]); 7] = [
            ("INDEX", b"CREATE INDEX g ON s.btree USING gin (a);\n"),
            ("INDEX", b"CREATE INDEX h ON s.t USING \"another one\" (a);\n"),
            ("INDEX", b"CREATE INDEX broken"),
            (
                "CONSTRAINT",
                b"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT e EXCLUDE USING gist (a WITH =);\n",
            ),
            (
                "CONSTRAINT",
                b"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT w PRIMARY KEY (a, b WITHOUT OVERLAPS);\n",
            ),
            (
                "CHECK CONSTRAINT",
                b"ALTER TABLE s.t\n    ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;\n",
            ),
            (
                "FK CONSTRAINT",
                b"ALTER TABLE ONLY s.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(a);\n",
            ),
        ];
        for (description, definition) in others {
            assert_eq!(prepared(description, definition, 2, 262_144), definition);
        }
    }

    #[test]
    fn a_b_tree_has_so_much_for_each_process_and_no_more_than_the_session() {
        let setting = |parallel_workers, most_kib| {
            let definition = prepared(
                "INDEX",
                b"CREATE INDEX a ON t USING btree (a)",
                parallel_workers,
                most_kib,
            );
            let text = String::from_utf8(definition).unwrap();
            text.split('\'').nth(1).unwrap().to_owned()
        };
        assert_eq!(setting(0, 262_144), "32768kB");
        assert_eq!(setting(8, 524_288), "294912kB");
        assert_eq!(setting(8, 131_072), "131072kB");
    }
}
