//! Rows out of a stream of CopyData messages, however it is cut. The server sends each row in one message (copyto.c,
//! `CopySendEndOfRow`), the header of the binary format in front of the first row, and its trailer alone, or behind the
//! header where there is no row.

use postgres_protocol::message::backend::COPY_DATA_TAG;

use super::error::WireError;
use super::{HEADER, MAX_MESSAGE};

/// What a binary COPY begins with (manual, "COPY", "File Header").
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags, and length of the extension.
const BINARY_HEADER: usize = SIGNATURE.len() + 4 + 4;

/// Flags that a reader must know: bits 16 to 31.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// PostgreSQL writes no extension; a longer one than this is nonsense.
const MAX_EXTENSION: usize = 4096;

/// The field count that ends a binary COPY.
const TRAILER: i16 = -1;

/// Form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Lines.
    Text,
    /// Tuples with this many fields.
    Binary { fields: i16 },
}

/// Where one step of [`RowStream::take`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    Starved,
    /// The limit is reached, and a row is complete.
    Full,
    /// A message that is not CopyData comes next.
    Message,
}

/// Takes rows out of what has come.
#[derive(Debug)]
pub(super) struct RowStream {
    format: Format,
    /// Rows that are complete.
    rows: u64,
    /// Bytes of the row under way that did not come yet.
    left: usize,
    /// Binary: the header has come. The trailer has come.
    began: bool,
    ended: bool,
}

impl RowStream {
    pub(super) const fn new(format: Format) -> Self {
        Self {
            format,
            rows: 0,
            left: 0,
            began: false,
            ended: false,
        }
    }

    /// Rows that are complete.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether the stream may end here.
    pub(super) const fn is_whole(&self) -> bool {
        self.left == 0 && (matches!(self.format, Format::Text) || self.ended)
    }

    /// Appends rows to `into` until that holds `limit` bytes or more at the end of a row. Returns the bytes used up.
    pub(super) fn take(
        &mut self,
        received: &[u8],
        into: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(usize, Step), WireError> {
        let mut rest = received;
        let step = loop {
            if self.left > 0 {
                let (row, behind) = rest.split_at(self.left.min(rest.len()));
                into.extend_from_slice(row);
                rest = behind;
                self.left -= row.len();
                if self.left > 0 {
                    break Step::Starved;
                }
                self.end_row(row)?;
                if into.len() >= limit {
                    break Step::Full;
                }
            }
            let Some((&[tag, a, b, c, d], body)) = rest.split_first_chunk::<HEADER>() else {
                break Step::Starved;
            };
            if tag != COPY_DATA_TAG {
                break Step::Message;
            }
            let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or_default();
            let Some(length) = length.checked_sub(4) else {
                return Err(WireError::violation("a message of COPY is shorter than its header"));
            };
            if length > MAX_MESSAGE {
                return Err(WireError::violation("a row of COPY is longer than a row can be"));
            }
            let Some(skipped) = self.begin_row(body, length)? else {
                break Step::Starved;
            };
            // `begin_row` has seen that the message holds what is skipped.
            rest = body.get(skipped..).unwrap_or_default();
            self.left = length - skipped;
        };
        Ok((received.len() - rest.len(), step))
    }

    /// Bytes in front of the row in this message; `None` where too few have come to tell.
    fn begin_row(&mut self, body: &[u8], length: usize) -> Result<Option<usize>, WireError> {
        let Format::Binary { fields } = self.format else {
            if length == 0 {
                return Err(WireError::violation("a line of COPY is empty and has no end"));
            }
            return Ok(Some(0));
        };
        let header = if self.began {
            0
        } else if let Some(header) = binary_header(body, length)? {
            header
        } else {
            return Ok(None);
        };
        if length < header + 2 {
            return Err(WireError::violation("a binary row of COPY has no field count"));
        }
        let Some(count) = body.get(header..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        self.began = true;
        let count = i16::from_be_bytes(*count);
        if self.ended {
            return Err(WireError::violation("a binary COPY goes on behind its trailer"));
        }
        if count == TRAILER && length == header + 2 {
            self.ended = true;
            return Ok(Some(length));
        }
        if count != fields {
            return Err(WireError::violation(format!(
                "a binary row of COPY has {count} fields, and {fields} were announced"
            )));
        }
        Ok(Some(header))
    }

    /// The last bytes of a row came.
    fn end_row(&mut self, row: &[u8]) -> Result<(), WireError> {
        if self.format == Format::Text && !row.ends_with(b"\n") {
            return Err(WireError::violation("a message of COPY is not one line"));
        }
        self.rows += 1;
        Ok(())
    }
}

/// Length of the header of a binary COPY; `None` where too little of it has come.
fn binary_header(body: &[u8], length: usize) -> Result<Option<usize>, WireError> {
    let wrong = || WireError::violation("a binary COPY does not begin with its header");
    if length < BINARY_HEADER {
        return Err(wrong());
    }
    let Some(header) = body.first_chunk::<BINARY_HEADER>() else {
        return Ok(None);
    };
    let (signature, numbers) = header.split_at(SIGNATURE.len());
    let &[f1, f2, f3, f4, e1, e2, e3, e4] = numbers else {
        return Err(wrong());
    };
    if signature != SIGNATURE {
        return Err(wrong());
    }
    if u32::from_be_bytes([f1, f2, f3, f4]) & CRITICAL_FLAGS != 0 {
        return Err(WireError::violation("a binary COPY has flags that are not known"));
    }
    let extension = usize::try_from(i32::from_be_bytes([e1, e2, e3, e4])).unwrap_or(usize::MAX);
    if extension > MAX_EXTENSION {
        return Err(WireError::violation(
            "the header of a binary COPY has a length that cannot be",
        ));
    }
    Ok(Some(BINARY_HEADER + extension))
}

#[cfg(test)]
mod tests;
