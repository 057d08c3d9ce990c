//! Tests of what the exported archive has.

use super::*;
use crate::postgres::archive::sample::{entry, toc};
use crate::store::manifest::{ChunkManifest, ColumnManifest, PartitioningManifest};

fn relation(oid: u32, name: &str, columns: &[(&str, &str)]) -> RelationManifest {
    let columns = columns.iter().map(|(name, of)| ColumnManifest {
        name: (*name).into(),
        data_type: (*of).into(),
        ..ColumnManifest::default()
    });
    let columns: Vec<_> = columns.collect();
    RelationManifest {
        oid,
        schema: "s".into(),
        name: name.into(),
        owner: "owner".into(),
        rows: Some(2),
        chunks: Some(ChunkedRows {
            format: RowFormat::Binary,
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            client_encoding: "UTF8".into(),
            chunks: vec![ChunkManifest {
                rows: 2,
                ..ChunkManifest::default()
            }],
        }),
        columns,
        ..RelationManifest::default()
    }
}

fn database(relations: impl IntoIterator<Item = RelationManifest>) -> DatabaseManifest {
    DatabaseManifest {
        relations: relations.into_iter().collect(),
        ..DatabaseManifest::default()
    }
}

fn definition(dump_id: i32, oid: u32, name: &str) -> TocEntry {
    let mut table = entry(dump_id, "TABLE", name, "CREATE TABLE …;\n").in_schema("s");
    table.catalog_oid = oid;
    table
}

fn archive() -> Toc {
    let mut sequence = entry(12, "SEQUENCE SET", "q", "SELECT setval(…);\n");
    sequence.section = Section::Data;
    let mut index = entry(13, "INDEX", "i", "CREATE INDEX …;\n").needs(&[10]);
    index.section = Section::PostData;
    toc([definition(10, 100, "a"), definition(11, 101, "b"), sequence, index])
}

fn statement(of: RelationManifest) -> String {
    let database = database([of]);
    let contents = Contents::plan(&archive(), &database, Sections::All).unwrap();
    let entry = contents.toc.entries.iter().find(|entry| entry.has_data).unwrap();
    entry.copy_statement.as_ref().unwrap().to_string()
}

#[test]
fn each_table_has_one_entry_behind_the_other_data_that_depends_on_its_definition() {
    let database = database([relation(100, "a", &[("id", "integer")]), relation(101, "b", &[])]);
    let contents = Contents::plan(&archive(), &database, Sections::All).unwrap();
    let order: Vec<_> = contents.toc.entries.iter().map(|entry| entry.dump_id).collect();
    assert_eq!(order, [1, 2, 10, 11, 12, 14, 15, 13]);
    assert_eq!(contents.toc.entry(15).unwrap().dependencies, [11]);
    assert_eq!(contents.files[&14], "14.dat");
    assert!(
        contents
            .check_listing(";\n14; 0 100 TABLE DATA s a owner\n15; 0 101 TABLE DATA s b owner\n")
            .is_ok()
    );
    let error = contents.check_listing("14; 0 100 TABLE DATA s a owner\n").unwrap_err();
    assert!(matches!(error, ExportError::NotListed { missing: 1, .. }), "{error}");
}

#[test]
fn the_statement_quotes_names_and_says_what_the_rows_need() {
    assert_eq!(
        statement(relation(100, "a", &[("id", "integer"), ("x \"y\"", "text")])),
        "COPY \"s\".\"a\" (\"id\", \"x \"\"y\"\"\") FROM stdin;\n"
    );
    assert_eq!(statement(relation(100, "a", &[])), "COPY \"s\".\"a\" FROM stdin;\n");
    let mut latin = relation(100, "a", &[("id", "text")]);
    latin.chunks.as_mut().unwrap().client_encoding = "LATIN1".into();
    assert_eq!(
        statement(latin),
        "COPY \"s\".\"a\" (\"id\") FROM stdin WITH (ENCODING 'LATIN1');\n"
    );
    for of in ["money", "money[]", "s.price"] {
        assert_eq!(
            statement(relation(100, "a", &[("p", of)])),
            "SET LOCAL lc_monetary = 'C'; COPY \"s\".\"a\" (\"p\") FROM stdin;\n"
        );
    }
}

#[test]
fn rows_go_through_the_root_where_a_table_above_divides_them_by_an_unsafe_hash() {
    let part = |of: &str, key: Option<&str>| {
        Some(PartitioningManifest {
            key: key.map(str::to_owned),
            parent_schema: Some("s".into()),
            parent_name: Some(of.into()),
            ..PartitioningManifest::default()
        })
    };
    let into = |key: &str| {
        let mut root = relation(99, "ro\not", &[("id", "integer"), ("m", "s.mood")]);
        root.chunks = None;
        root.partitioning = Some(PartitioningManifest {
            key: Some("RANGE (id)".into()),
            ..PartitioningManifest::default()
        });
        let mut middle = relation(98, "middle", &[("id", "integer"), ("m", "s.mood")]);
        middle.chunks = None;
        middle.partitioning = part("ro\not", Some(key));
        let mut leaf = relation(100, "a", &[("id", "integer"), ("m", "s.mood")]);
        leaf.partitioning = part("middle", None);
        let database = database([root, middle, leaf]);
        let contents = Contents::plan(&archive(), &database, Sections::All).unwrap();
        let entry = contents.toc.entries.iter().find(|entry| entry.has_data).unwrap();
        entry.definition.as_ref().map(ToString::to_string)
    };
    assert_eq!(into("HASH (id)"), None);
    assert_eq!(into("LIST (m)"), None);
    for key in ["HASH (m)", "HASH (id, m)", "HASH (lower(x))"] {
        assert_eq!(
            into(key).as_deref(),
            Some("-- load via partition root \"s\".\"ro ot\""),
            "{key}"
        );
    }
}

#[test]
fn a_backup_that_contradicts_itself_is_refused() {
    let mut fewer = relation(100, "a", &[]);
    fewer.rows = Some(3);
    let error = Contents::plan(&archive(), &database([fewer]), Sections::All).unwrap_err();
    assert!(
        error.to_string().contains("not as many as those of its chunks"),
        "{error}"
    );
    let error = Contents::plan(&archive(), &database([relation(7, "a", &[])]), Sections::All).unwrap_err();
    assert!(error.to_string().contains("does not define"), "{error}");
    assert!(Contents::plan(&archive(), &database([relation(7, "a", &[])]), Sections::Data).is_ok());
    let mut twice = archive();
    let mut rows = definition(20, 100, "a");
    rows.description = "TABLE DATA".into();
    twice.entries.push(rows);
    let error = Contents::plan(&twice, &database([relation(100, "a", &[])]), Sections::All).unwrap_err();
    assert!(error.to_string().contains("in the archive and in chunks"), "{error}");
}
