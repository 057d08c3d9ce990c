//! Tables of contents made for tests, as `pg_dump` 18 would write them.

use libpgdump::Timestamp;

use super::compression::Compression;
use super::entry::{Section, TocEntry};
use super::toc::{ArchiveVersion, Header, Toc};

/// An entry of pre-data without data.
pub(crate) fn entry(dump_id: i32, description: &str, tag: &str, definition: &str) -> TocEntry {
    TocEntry {
        dump_id,
        has_data: false,
        catalog_table_oid: 0,
        catalog_oid: 0,
        tag: Some(tag.into()),
        description: description.into(),
        section: Section::PreData,
        definition: Some(definition.into()),
        drop_statement: Some("".into()),
        copy_statement: None,
        schema: None,
        tablespace: None,
        table_access_method: None,
        relation_kind: 0,
        owner: Some("owner".into()),
        with_oids: Some("false".into()),
        dependencies: Vec::new(),
    }
}

impl TocEntry {
    pub(crate) fn needs(mut self, dependencies: &[i32]) -> Self {
        self.dependencies = dependencies.to_vec();
        self
    }

    pub(crate) fn in_schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.into());
        self
    }
}

/// A table of contents in UTF8 with these entries.
pub(crate) fn toc(entries: impl IntoIterator<Item = TocEntry>) -> Toc {
    let head = [
        entry(1, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n"),
        entry(
            2,
            "STDSTRINGS",
            "STDSTRINGS",
            "SET standard_conforming_strings = 'on';\n",
        ),
    ];
    Toc {
        header: Header {
            version: ArchiveVersion {
                major: 1,
                minor: 16,
                revision: 0,
            },
            integer_size: 4,
            offset_size: 8,
            compression: Compression::Zstd,
            compression_level: 0,
            created: Timestamp {
                second: 1,
                minute: 2,
                hour: 3,
                day: 4,
                month: 5,
                year: 126,
                is_dst: 0,
            },
            database: Some("shop".into()),
            server_version: Some("18.6".into()),
            dump_version: Some("18.6".into()),
        },
        entries: head.into_iter().chain(entries).collect(),
    }
}
