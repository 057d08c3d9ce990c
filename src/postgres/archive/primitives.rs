//! Integers, texts and positions as an archive has them (`WriteInt`, `WriteStr`, `WriteOffset` of
//! `pg_backup_archiver.c`).

use std::io::{self, Read};
use std::str::FromStr;

use libpgdump::OffsetState;
use libpgdump::io::primitives::{read_byte as byte, read_int as integer};

use super::error::ArchiveError;
use super::text::Text;

/// What an error of the decoder means while header and table of contents are read.
pub(super) fn toc_error(error: libpgdump::Error) -> ArchiveError {
    match error {
        libpgdump::Error::Io(error) => toc_io_error(error),
        _ => ArchiveError::HeaderDamaged("a position has a state that is not known"),
    }
}

fn toc_io_error(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated {
            within: "its table of contents".into(),
        },
        _ => ArchiveError::Read(error),
    }
}

pub(super) fn read_byte(input: &mut impl Read) -> Result<u8, ArchiveError> {
    byte(input).map_err(toc_error)
}

pub(super) fn read_integer(input: &mut impl Read, size: u8) -> Result<i32, ArchiveError> {
    integer(input, size).map_err(toc_error)
}

/// A negative length is NULL, which is not the same as an empty text.
pub(super) fn read_text(input: &mut impl Read, size: u8) -> Result<Option<Text>, ArchiveError> {
    let Ok(length) = u64::try_from(read_integer(input, size)?) else {
        return Ok(None);
    };
    // Grown as bytes arrive: a damaged length must not reserve gigabytes.
    let mut bytes = Vec::new();
    input
        .by_ref()
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(toc_io_error)?;
    if (bytes.len() as u64) < length {
        return Err(toc_io_error(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(bytes.into()))
}

pub(super) fn number<N: FromStr>(text: Option<Text>) -> Option<N> {
    text?.to_str()?.parse().ok()
}

pub(super) fn push_integer(output: &mut Vec<u8>, value: i32, size: u8) {
    output.push(u8::from(value < 0));
    output.extend_from_slice(&value.unsigned_abs().to_le_bytes()[..usize::from(size)]);
}

pub(super) fn push_text(output: &mut Vec<u8>, text: Option<&[u8]>, size: u8) {
    match text {
        // A text longer than 2 GiB cannot come from an archive, whose lengths are 32 bits wide.
        Some(text) => {
            push_integer(output, i32::try_from(text.len()).unwrap_or(i32::MAX), size);
            output.extend_from_slice(text);
        }
        None => push_integer(output, -1, size),
    }
}

pub(super) fn push_offset(output: &mut Vec<u8>, state: OffsetState, size: u8) {
    output.push(state as u8);
    output.extend(std::iter::repeat_n(0, usize::from(size)));
}
