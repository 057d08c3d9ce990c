//! Reads the data blocks of an archive: what they hold is decoded and counted, and the second table of contents cut.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use libpgdump::io::primitives::{read_byte, read_int};

use super::entry::TocEntry;
use super::error::ArchiveError;
use super::extract::DataSink;
use super::feed::Feed;
use super::reader::{Counters, DataBlock, DataSummary};
use super::rows::RowCounter;
use super::toc::{Header, Toc, read_entries};

/// Block of rows (`BLK_DATA`).
const ROWS: u8 = 1;
/// Block of large objects (`BLK_BLOBS`).
const LARGE_OBJECTS: u8 = 3;
/// First byte of the second table of contents: the sign of the number of its entries.
const POSITIVE: u8 = 0;

/// Large enough to keep calls few, small enough to stay in the processor's cache.
const DECODED_BYTES: usize = 128 * 1024;

/// Reads everything behind the first table of contents, and gives what the blocks hold to `sink`.
pub(super) fn read_blocks(
    feed: &mut Feed,
    toc: &Toc,
    counters: &Arc<Counters>,
    sink: &mut dyn DataSink,
) -> Result<DataSummary, ArchiveError> {
    let begin = feed.position();
    let mut awaited: BTreeMap<i32, &TocEntry> = toc
        .entries
        .iter()
        .filter(|entry| entry.has_data)
        .map(|entry| (entry.dump_id, entry))
        .collect();
    let mut reading = Blocks {
        header: &toc.header,
        counters,
        sink,
        buffer: vec![0; DECODED_BYTES],
    };
    let mut blocks = Vec::new();
    loop {
        let offset = feed.position() - begin;
        let kind = match feed.peek().map_err(|error| between(feed, &error))? {
            Some(kind @ (ROWS | LARGE_OBJECTS)) => kind,
            Some(POSITIVE) if awaited.is_empty() => {
                feed.cut().map_err(|error| between(feed, &error))?;
                read_tail(feed, toc)?;
                break;
            }
            Some(_) => return Err(unexpected(&awaited)),
            None => {
                feed.cut().map_err(|error| between(feed, &error))?;
                break;
            }
        };
        let dump_id = reading.block_start(feed).map_err(|error| between(feed, &error))?;
        let entry = awaited
            .remove(&dump_id)
            .ok_or(ArchiveError::BlockUnexpected { dump_id })?;
        let counted = reading.block(feed, kind, entry);
        let (rows, large_objects, bytes) = counted.map_err(|error| match error {
            BlockError::Io(error) => in_block(feed, entry, error),
            BlockError::Sink(error) => ArchiveError::Write(error),
            BlockError::Unterminated => ArchiveError::RowsUnterminated { entry: entry.label() },
        })?;
        counters.block_done(rows.unwrap_or_default());
        blocks.push(DataBlock {
            dump_id,
            rows,
            large_objects,
            bytes,
            stored_bytes: feed.position() - begin - offset,
            offset,
        });
    }
    match awaited.values().next() {
        None => Ok(DataSummary { blocks }),
        Some(first) => Err(ArchiveError::BlocksMissing {
            missing: awaited.len(),
            first: first.label(),
        }),
    }
}

/// `_CloseArchive` writes the table of contents once more where it can; it must be the same but for positions.
fn read_tail(feed: &mut Feed, toc: &Toc) -> Result<(), ArchiveError> {
    let entries = read_entries(feed, &toc.header).map_err(|error| match feed.take_failure() {
        Some(failure) => ArchiveError::Read(failure),
        None => match error {
            ArchiveError::Truncated { .. } => ArchiveError::Truncated {
                within: "its second table of contents".into(),
            },
            _ => ArchiveError::TailUnexpected,
        },
    })?;
    let at_end = feed.peek().map_err(|error| between(feed, &error))?.is_none();
    if at_end && entries == toc.entries {
        Ok(())
    } else {
        Err(ArchiveError::TailUnexpected)
    }
}

fn unexpected(awaited: &BTreeMap<i32, &TocEntry>) -> ArchiveError {
    match awaited.values().next() {
        Some(first) => ArchiveError::BlocksMissing {
            missing: awaited.len(),
            first: first.label(),
        },
        None => ArchiveError::TailUnexpected,
    }
}

fn between(feed: &mut Feed, error: &io::Error) -> ArchiveError {
    if let Some(failure) = feed.take_failure() {
        return ArchiveError::Read(failure);
    }
    match error.kind() {
        io::ErrorKind::BrokenPipe => ArchiveError::Interrupted,
        _ => ArchiveError::Truncated {
            within: "the head of a data block".into(),
        },
    }
}

fn in_block(feed: &mut Feed, entry: &TocEntry, error: io::Error) -> ArchiveError {
    if let Some(failure) = feed.take_failure() {
        return ArchiveError::Read(failure);
    }
    match error.kind() {
        io::ErrorKind::BrokenPipe => ArchiveError::Interrupted,
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated {
            within: format!("the data of {}", entry.label()),
        },
        _ => ArchiveError::BlockDamaged {
            entry: entry.label(),
            source: error,
        },
    }
}

enum BlockError {
    Io(io::Error),
    /// What was decoded could not be handed on.
    Sink(io::Error),
    Unterminated,
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Rows where they can be counted, large objects, decoded bytes.
type Counted = (Option<u64>, u64, u64);

struct Blocks<'a> {
    header: &'a Header,
    counters: &'a Counters,
    sink: &'a mut dyn DataSink,
    buffer: Vec<u8>,
}

impl Blocks<'_> {
    /// The kind of the block, which has been looked at already, and its dump id.
    fn block_start(&self, feed: &mut Feed) -> io::Result<i32> {
        read_byte(feed).map_err(into_io)?;
        read_int(feed, self.header.integer_size).map_err(into_io)
    }

    fn block(&mut self, feed: &mut Feed, kind: u8, entry: &TocEntry) -> Result<Counted, BlockError> {
        self.sink.begin(entry).map_err(BlockError::Sink)?;
        let counted = match kind {
            ROWS => self.rows(feed, entry)?,
            _ => self.large_objects(feed)?,
        };
        self.sink.end().map_err(BlockError::Sink)?;
        Ok(counted)
    }

    fn rows(&mut self, feed: &mut Feed, entry: &TocEntry) -> Result<Counted, BlockError> {
        // Without a COPY statement the data are INSERTs (`pg_dump --inserts`), whose lines are not rows.
        if entry.copy_statement.as_ref().is_none_or(super::Text::is_empty) {
            let bytes = self.decode(feed, |_| 0)?;
            return Ok((None, 0, bytes));
        }
        let mut counter = RowCounter::default();
        let bytes = self.decode(feed, |data| {
            let before = counter.lines();
            counter.take(data);
            counter.lines() - before
        })?;
        let rows = counter.finish().ok_or(BlockError::Unterminated)?;
        Ok((Some(rows), 0, bytes))
    }

    /// For each large object its OID and its data; OID 0 ends the block (`_StartLO`, `_EndLOs`).
    fn large_objects(&mut self, feed: &mut Feed) -> Result<Counted, BlockError> {
        let mut objects = 0;
        let mut bytes = 0;
        loop {
            // OIDs are unsigned; the format writes them as integers with a sign (`WriteInt`).
            let oid = read_int(feed, self.header.integer_size).map_err(into_io)?;
            if oid == 0 {
                break;
            }
            self.sink.large_object(oid.cast_unsigned()).map_err(BlockError::Sink)?;
            bytes += self.decode(feed, |_| 0)?;
            objects += 1;
        }
        Ok((None, objects, bytes))
    }

    /// Decodes one compressed stream to its end, and returns how many bytes it held.
    fn decode(&mut self, feed: &mut Feed, mut lines: impl FnMut(&[u8]) -> u64) -> Result<u64, BlockError> {
        let mut chunks = Chunks::new(feed, self.header.integer_size);
        let mut bytes = 0;
        {
            let algorithm = self.header.compression.algorithm();
            let mut decoder = libpgdump::compress::decompressor(algorithm, &mut chunks).map_err(into_io)?;
            loop {
                let length = fill(&mut decoder, &mut self.buffer).map_err(chunks_error)?;
                if length == 0 {
                    break;
                }
                bytes += length as u64;
                let lines = lines(&self.buffer[..length]);
                self.counters.decoded(length as u64, lines);
                self.sink.write(&self.buffer[..length]).map_err(BlockError::Sink)?;
            }
        }
        chunks.finish()?;
        Ok(bytes)
    }
}

/// Reads until the buffer is full or the stream ends: without compression, a chunk is but one row.
fn fill(decoder: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match decoder.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A decoder that runs out of input inside an intact block has been given damaged data, not a cut archive: a cut is
/// marked by `Chunks` itself.
fn chunks_error(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none_or(|inner| !inner.is::<Cut>()) {
        io::Error::new(io::ErrorKind::InvalidData, error)
    } else {
        error
    }
}

/// The input ended within a block.
#[derive(Debug, thiserror::Error)]
#[error("the input ended")]
struct Cut;

fn into_io(error: libpgdump::Error) -> io::Error {
    match error {
        libpgdump::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// The payload of one compressed stream: chunks, each with its length before it, and a length of 0 at the end
/// (`_CustomWriteFunc`, `_EndData`).
struct Chunks<'a> {
    feed: &'a mut Feed,
    integer_size: u8,
    /// Bytes left of the current chunk.
    left: usize,
    ended: bool,
}

impl<'a> Chunks<'a> {
    const fn new(feed: &'a mut Feed, integer_size: u8) -> Self {
        Self {
            feed,
            integer_size,
            left: 0,
            ended: false,
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let length = read_int(self.feed, self.integer_size)
            .map_err(into_io)
            .map_err(mark_cut)?;
        self.left =
            usize::try_from(length).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a length is negative"))?;
        self.ended = self.left == 0;
        Ok(())
    }

    /// Reads up to the end mark. Anything but the end mark is data that pg_restore would leave out.
    fn finish(mut self) -> io::Result<()> {
        if self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "there is more data after the end of the compressed stream",
            ))
        }
    }
}

fn mark_cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, Cut),
        _ => error,
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let length = self.left.min(buffer.len());
        let read = self.feed.read(&mut buffer[..length])?;
        if read == 0 {
            return Err(mark_cut(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= read;
        Ok(read)
    }
}
