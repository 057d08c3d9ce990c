//! The header and the table of contents of an archive.

use std::collections::BTreeMap;
use std::io::Read;

use libpgdump::Timestamp;
use libpgdump::io::primitives::read_timestamp;

use super::compression::Compression;
use super::entry::TocEntry;
use super::error::ArchiveError;
use super::primitives::{push_integer, push_text, read_byte, read_integer, read_text, toc_error};
use super::text::Text;

/// Version of the format: 1.14 from `pg_dump` 12 to 15, 1.15 from 16, 1.16 from 17 and 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveVersion {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Revision.
    pub revision: u8,
}

impl ArchiveVersion {
    pub(super) const fn has_access_methods(self) -> bool {
        self.minor >= 14
    }

    pub(super) const fn names_compression(self) -> bool {
        self.minor >= 15
    }

    pub(super) const fn has_relation_kinds(self) -> bool {
        self.minor >= 16
    }
}

/// What stands before the table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: ArchiveVersion,
    pub integer_size: u8,
    pub offset_size: u8,
    pub compression: Compression,
    /// Before 1.15, the level of the compression as it stands in the header.
    pub compression_level: i32,
    pub created: Timestamp,
    pub database: Option<Text>,
    pub server_version: Option<Text>,
    pub dump_version: Option<Text>,
}

/// Format byte of the custom format (`archCustom`).
const CUSTOM_FORMAT: u8 = 1;

/// Format byte of `toc.dat`: a directory calls itself a tar there (`_CloseArchive` of `pg_backup_directory.c`).
const DIRECTORY_FORMAT: u8 = 3;

impl Header {
    pub(super) fn read(input: &mut impl Read) -> Result<Self, ArchiveError> {
        let mut magic = [0; 5];
        for byte in &mut magic {
            *byte = read_byte(input)?;
        }
        if &magic != b"PGDMP" {
            return Err(ArchiveError::NotAnArchive);
        }
        let (major, minor, revision) = (read_byte(input)?, read_byte(input)?, read_byte(input)?);
        if major != 1 || !(12..=16).contains(&minor) {
            return Err(ArchiveError::VersionUnknown { major, minor });
        }
        let version = ArchiveVersion { major, minor, revision };
        let integer_size = read_byte(input)?;
        if integer_size != 4 {
            return Err(ArchiveError::HeaderDamaged("integers are not 4 bytes wide"));
        }
        let offset_size = read_byte(input)?;
        if !(1..=8).contains(&offset_size) {
            return Err(ArchiveError::HeaderDamaged("positions are not 1 to 8 bytes wide"));
        }
        match read_byte(input)? {
            CUSTOM_FORMAT => {}
            other => return Err(ArchiveError::NotCustomFormat(other)),
        }
        let (compression, compression_level) = if version.names_compression() {
            (Compression::from_byte(read_byte(input)?)?, 0)
        } else {
            let level = read_integer(input, integer_size)?;
            (Compression::from_level(level), level)
        };
        Ok(Self {
            version,
            integer_size,
            offset_size,
            compression,
            compression_level,
            created: read_timestamp(input, integer_size).map_err(toc_error)?,
            database: read_text(input, integer_size)?,
            server_version: read_text(input, integer_size)?,
            dump_version: read_text(input, integer_size)?,
        })
    }

    fn write(&self, output: &mut Vec<u8>, format: u8) {
        let Self {
            version,
            integer_size,
            offset_size,
            compression,
            compression_level,
            created,
            database,
            server_version,
            dump_version,
        } = self;
        let size = *integer_size;
        output.extend_from_slice(b"PGDMP");
        output.extend_from_slice(&[
            version.major,
            version.minor,
            version.revision,
            size,
            *offset_size,
            format,
        ]);
        if version.names_compression() {
            output.push(compression.byte());
        } else {
            push_integer(output, *compression_level, size);
        }
        let Timestamp {
            second,
            minute,
            hour,
            day,
            month,
            year,
            is_dst,
        } = created;
        for part in [second, minute, hour, day, month, year, is_dst] {
            push_integer(output, *part, size);
        }
        for text in [database, server_version, dump_version] {
            push_text(output, text.as_ref().map(Text::as_bytes), size);
        }
    }
}

/// The header and the table of contents of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    pub(super) header: Header,
    /// The entries, in the order of the restore.
    pub entries: Vec<TocEntry>,
}

impl Toc {
    /// Reads header and table of contents, and nothing behind them.
    pub fn read(input: &mut impl Read) -> Result<Self, ArchiveError> {
        let header = Header::read(input)?;
        let entries = read_entries(input, &header)?;
        Ok(Self { header, entries })
    }

    /// Header and table of contents as they stand at the beginning of an archive. Positions of blocks are left unset:
    /// every `pg_restore` reads the blocks that follow from a pipe.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.write(CUSTOM_FORMAT, &self.header, |entry, output| {
            entry.write_position(output, &self.header);
        })
    }

    /// `toc.dat` of an archive in the directory format whose data files, by entry, are not compressed.
    #[must_use]
    pub fn to_directory_bytes(&self, files: &BTreeMap<i32, String>) -> Vec<u8> {
        let header = Header {
            compression: Compression::None,
            compression_level: 0,
            ..self.header.clone()
        };
        self.write(DIRECTORY_FORMAT, &header, |entry, output| {
            // An entry without a file has the empty name (`_WriteExtraToc`).
            let file = files.get(&entry.dump_id).map_or("", String::as_str);
            push_text(output, Some(file.as_bytes()), header.integer_size);
        })
    }

    fn write(&self, format: u8, header: &Header, mut extra: impl FnMut(&TocEntry, &mut Vec<u8>)) -> Vec<u8> {
        let mut output = Vec::new();
        header.write(&mut output, format);
        let count = i32::try_from(self.entries.len()).unwrap_or(i32::MAX);
        push_integer(&mut output, count, header.integer_size);
        for entry in &self.entries {
            entry.write(&mut output, header);
            extra(entry, &mut output);
        }
        output
    }

    /// Version of the format.
    #[must_use]
    pub const fn version(&self) -> ArchiveVersion {
        self.header.version
    }

    /// How the data blocks are compressed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.header.compression
    }

    /// The database that was dumped.
    #[must_use]
    pub const fn database(&self) -> Option<&Text> {
        self.header.database.as_ref()
    }

    /// Version of the server that was dumped, as it calls itself.
    #[must_use]
    pub const fn server_version(&self) -> Option<&Text> {
        self.header.server_version.as_ref()
    }

    /// Version of the `pg_dump` that wrote the archive.
    #[must_use]
    pub const fn dump_version(&self) -> Option<&Text> {
        self.header.dump_version.as_ref()
    }

    /// Major version of the `pg_dump` that wrote the archive.
    #[must_use]
    pub fn dump_major(&self) -> Option<u32> {
        major(self.dump_version()?)
    }

    /// Major version of the server that was dumped.
    #[must_use]
    pub fn server_major(&self) -> Option<u32> {
        major(self.server_version()?)
    }

    /// Name of the file that lists the large objects of an entry in the directory format. Readers before 17 know one
    /// such entry and one name (`_LoadBlobs`); from then on the name is in the table of contents.
    #[must_use]
    pub fn large_objects_file(&self, dump_id: i32) -> String {
        if self.header.version.has_relation_kinds() {
            format!("blobs_{dump_id}.toc")
        } else {
            "blobs.toc".to_owned()
        }
    }

    /// The entry with this number.
    #[must_use]
    pub fn entry(&self, dump_id: i32) -> Option<&TocEntry> {
        self.entries.iter().find(|entry| entry.dump_id == dump_id)
    }
}

fn major(version: &Text) -> Option<u32> {
    let digits: String = version.to_str()?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The number of entries, and the entries. The second table of contents of an archive is just this.
pub(super) fn read_entries(input: &mut impl Read, header: &Header) -> Result<Vec<TocEntry>, ArchiveError> {
    let Ok(count) = usize::try_from(read_integer(input, header.integer_size)?) else {
        return Err(ArchiveError::HeaderDamaged("the number of entries is negative"));
    };
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(TocEntry::read(input, header)?);
    }
    Ok(entries)
}
