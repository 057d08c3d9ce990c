//! One entry of a table of contents, and how it is read and written (`ReadToc` and `WriteToc` of
//! `pg_backup_archiver.c`, `_ReadExtraToc` of `pg_backup_custom.c`).

use std::fmt;
use std::io::Read;

use libpgdump::OffsetState;
use libpgdump::io::primitives::read_offset;

use super::error::ArchiveError;
use super::primitives::{number, push_integer, push_offset, push_text, read_integer, read_text, toc_error};
use super::text::Text;
use super::toc::Header;

/// The part of a restore that an entry belongs to (`teSection`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Comments and grants, which belong to the section of their object.
    None,
    /// Definitions that rows need.
    PreData,
    /// Rows, large objects and sequence values.
    Data,
    /// What is built over the rows.
    PostData,
}

impl Section {
    const fn from_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::None),
            2 => Some(Self::PreData),
            3 => Some(Self::Data),
            4 => Some(Self::PostData),
            _ => None,
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::None => 1,
            Self::PreData => 2,
            Self::Data => 3,
            Self::PostData => 4,
        }
    }
}

/// One entry of a table of contents. Its definition may hold passwords: `Debug` shows the label alone.
#[derive(Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Number of the entry in this archive.
    pub dump_id: i32,
    /// Whether a data block belongs to it.
    pub has_data: bool,
    /// OID of the catalog that the object stands in, 0 where it stands in none.
    pub catalog_table_oid: u32,
    /// OID of the object in that catalog; for `TABLE DATA` that of the table.
    pub catalog_oid: u32,
    /// Name of the object, as `pg_restore --list` shows it.
    pub tag: Option<Text>,
    /// Kind of the object: `TABLE`, `TABLE DATA`, `SERVER`, …
    pub description: Text,
    /// Part of the restore that it belongs to.
    pub section: Section,
    /// SQL that makes the object.
    pub definition: Option<Text>,
    /// SQL that drops it.
    pub drop_statement: Option<Text>,
    /// `COPY … FROM stdin;` of the rows.
    pub copy_statement: Option<Text>,
    /// Schema that the object stands in.
    pub schema: Option<Text>,
    /// Tablespace; empty is the database's own.
    pub tablespace: Option<Text>,
    /// Access method of a table.
    pub table_access_method: Option<Text>,
    /// `pg_class.relkind` as a number, 0 where there is none; archives before 1.16 have none.
    pub relation_kind: i32,
    /// Role that owns the object.
    pub owner: Option<Text>,
    /// What remains of `WITH OIDS`: `false`.
    pub with_oids: Option<Text>,
    /// Dump ids of what must be restored before.
    pub dependencies: Vec<i32>,
}

impl fmt::Debug for TocEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.dump_id, self.label())
    }
}

impl TocEntry {
    /// The entry in a few words: kind, schema and name.
    #[must_use]
    pub fn label(&self) -> String {
        let tag = self.tag.as_ref().map(Text::lossy).unwrap_or_default();
        match self.schema.as_ref().filter(|schema| !schema.is_empty()) {
            Some(schema) => format!("{} {schema}.{tag}", self.description),
            None => format!("{} {tag}", self.description),
        }
    }

    pub(super) fn read(input: &mut impl Read, header: &Header) -> Result<Self, ArchiveError> {
        let size = header.integer_size;
        let dump_id = read_integer(input, size)?;
        let damaged = |what| ArchiveError::EntryDamaged { dump_id, what };
        let has_data = read_integer(input, size)? != 0;
        let catalog_table_oid =
            number(read_text(input, size)?).ok_or(damaged("the OID of its catalog is not a number"))?;
        let catalog_oid = number(read_text(input, size)?).ok_or(damaged("its OID is not a number"))?;
        let tag = read_text(input, size)?;
        let description = read_text(input, size)?.ok_or(damaged("it does not say what it describes"))?;
        let section = Section::from_number(read_integer(input, size)?).ok_or(damaged("its section is not known"))?;
        let definition = read_text(input, size)?;
        let drop_statement = read_text(input, size)?;
        let copy_statement = read_text(input, size)?;
        let schema = read_text(input, size)?;
        let tablespace = read_text(input, size)?;
        let table_access_method = if header.version.has_access_methods() {
            read_text(input, size)?
        } else {
            None
        };
        let relation_kind = if header.version.has_relation_kinds() {
            read_integer(input, size)?
        } else {
            0
        };
        let owner = read_text(input, size)?;
        let with_oids = read_text(input, size)?;
        let mut dependencies = Vec::new();
        while let Some(dependency) = read_text(input, size)? {
            dependencies.push(number(Some(dependency)).ok_or(damaged("a dependency is not a number"))?);
        }
        // Positions are of no use to a stream; which entries have data, `has_data` says.
        read_offset(input, header.offset_size).map_err(toc_error)?;
        Ok(Self {
            dump_id,
            has_data,
            catalog_table_oid,
            catalog_oid,
            tag,
            description,
            section,
            definition,
            drop_statement,
            copy_statement,
            schema,
            tablespace,
            table_access_method,
            relation_kind,
            owner,
            with_oids,
            dependencies,
        })
    }

    /// What an entry has in every format.
    pub(super) fn write(&self, output: &mut Vec<u8>, header: &Header) {
        let Self {
            dump_id,
            has_data,
            catalog_table_oid,
            catalog_oid,
            tag,
            description,
            section,
            definition,
            drop_statement,
            copy_statement,
            schema,
            tablespace,
            table_access_method,
            relation_kind,
            owner,
            with_oids,
            dependencies,
        } = self;
        let size = header.integer_size;
        push_integer(output, *dump_id, size);
        push_integer(output, i32::from(*has_data), size);
        push_text(output, Some(catalog_table_oid.to_string().as_bytes()), size);
        push_text(output, Some(catalog_oid.to_string().as_bytes()), size);
        push_text(output, tag.as_ref().map(Text::as_bytes), size);
        push_text(output, Some(description.as_bytes()), size);
        push_integer(output, section.number(), size);
        for text in [definition, drop_statement, copy_statement, schema, tablespace] {
            push_text(output, text.as_ref().map(Text::as_bytes), size);
        }
        if header.version.has_access_methods() {
            push_text(output, table_access_method.as_ref().map(Text::as_bytes), size);
        }
        if header.version.has_relation_kinds() {
            push_integer(output, *relation_kind, size);
        }
        push_text(output, owner.as_ref().map(Text::as_bytes), size);
        push_text(output, with_oids.as_ref().map(Text::as_bytes), size);
        for dependency in dependencies {
            push_text(output, Some(dependency.to_string().as_bytes()), size);
        }
        push_text(output, None, size);
    }

    /// What an entry of the custom format has besides. Positions are written as unset, so that any `pg_restore` reads
    /// the blocks from a pipe in their order.
    pub(super) fn write_position(&self, output: &mut Vec<u8>, header: &Header) {
        let state = if self.has_data {
            OffsetState::NotSet
        } else {
            OffsetState::NoData
        };
        push_offset(output, state, header.offset_size);
    }
}
