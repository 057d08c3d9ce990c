//! Reads an archive from a stream and passes its data on while it is checked and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::blocks::read_blocks;
use super::error::ArchiveError;
use super::extract::Nowhere;
use super::feed::Feed;
use super::toc::Toc;

/// Buffers between two stages, each of at most `BUFFER_BYTES`.
pub(super) const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 128 * 1024;

/// What one data block held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataBlock {
    /// The entry that it belongs to.
    pub dump_id: i32,
    /// Rows; `None` for large objects, and for rows that are not COPY data.
    pub rows: Option<u64>,
    /// Large objects.
    pub large_objects: u64,
    /// Bytes after decoding.
    pub bytes: u64,
    /// Bytes in the archive.
    pub stored_bytes: u64,
    /// Where the block begins, counted in bytes from the end of the table of contents: the position in a stored
    /// archive is this plus the length of `Toc::to_bytes`.
    pub offset: u64,
}

/// What the data blocks of an archive held, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataSummary {
    /// The blocks.
    pub blocks: Vec<DataBlock>,
}

impl DataSummary {
    /// Rows of all blocks.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.blocks.iter().filter_map(|block| block.rows).sum()
    }

    /// Large objects of all blocks.
    #[must_use]
    pub fn large_objects(&self) -> u64 {
        self.blocks.iter().map(|block| block.large_objects).sum()
    }

    /// Decoded bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes).sum()
    }
}

/// How far the data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataProgress {
    /// Rows, those of the current block about.
    pub rows: u64,
    /// Decoded bytes.
    pub bytes: u64,
    /// Blocks that have ended.
    pub blocks: u64,
}

/// Counts that the decoding thread keeps while it works.
#[derive(Debug, Default)]
pub(super) struct Counters {
    finished_rows: AtomicU64,
    current_rows: AtomicU64,
    bytes: AtomicU64,
    blocks: AtomicU64,
}

impl Counters {
    pub(super) fn decoded(&self, bytes: u64, lines: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.current_rows.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn block_done(&self, rows: u64) {
        self.current_rows.store(0, Ordering::Relaxed);
        self.finished_rows.fetch_add(rows, Ordering::Relaxed);
        self.blocks.fetch_add(1, Ordering::Relaxed);
    }
}

/// An archive whose table of contents has been read, and whose data is still to come.
///
/// One task reads the input, one thread decodes, and the caller takes what has been decoded: the three overlap, with a
/// few buffers between them. Dropping the reader ends both.
pub struct ArchiveReader {
    toc: Arc<Toc>,
    data: mpsc::Receiver<Bytes>,
    counters: Arc<Counters>,
    decoding: Option<JoinHandle<Result<DataSummary, ArchiveError>>>,
    summary: Option<DataSummary>,
    _reading: AbortOnDropHandle<()>,
}

impl ArchiveReader {
    /// Reads the header and the table of contents.
    pub async fn open(input: impl AsyncRead + Unpin + Send + 'static) -> Result<Self, ArchiveError> {
        let (filled, buffers) = mpsc::channel(BUFFERS);
        let (passed_on, data) = mpsc::channel(BUFFERS);
        let (found, toc) = oneshot::channel();
        let reading = AbortOnDropHandle::new(tokio::spawn(fill(input, filled)));
        let counters = Arc::<Counters>::default();
        let decoding = {
            let counters = Arc::clone(&counters);
            tokio::task::spawn_blocking(move || decode(Feed::new(buffers, passed_on), found, &counters))
        };
        match toc.await {
            Ok(toc) => Ok(Self {
                toc,
                data,
                counters,
                decoding: Some(decoding),
                summary: None,
                _reading: reading,
            }),
            // The thread ended before it had a table of contents: it has an error.
            Err(_) => match decoding.await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Err(ArchiveError::Interrupted),
            },
        }
    }

    /// Header and table of contents as they came.
    #[must_use]
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// Header and table of contents, for a reader who does not need the data.
    #[must_use]
    pub fn into_toc(self) -> Toc {
        (*self.toc).clone()
    }

    /// The next bytes of the data part: everything between the table of contents and the second one, unchanged.
    /// `None` after the last; then the archive was whole, and `summary` has the counts. An archive that ends too early
    /// or is damaged is an error, which comes after the bytes before the damage.
    pub async fn next_block_bytes(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        if let Some(bytes) = self.data.recv().await {
            return Ok(Some(bytes));
        }
        if let Some(decoding) = self.decoding.take() {
            self.summary = Some(decoding.await.map_err(|_| ArchiveError::Interrupted)??);
        }
        match self.summary {
            Some(_) => Ok(None),
            None => Err(ArchiveError::Interrupted),
        }
    }

    /// How far the data is.
    #[must_use]
    pub fn progress(&self) -> DataProgress {
        let Counters {
            finished_rows,
            current_rows,
            bytes,
            blocks,
        } = &*self.counters;
        DataProgress {
            rows: finished_rows.load(Ordering::Relaxed) + current_rows.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
            blocks: blocks.load(Ordering::Relaxed),
        }
    }

    /// What the blocks held; there once `next_block_bytes` has returned `None`.
    #[must_use]
    pub const fn summary(&self) -> Option<&DataSummary> {
        self.summary.as_ref()
    }
}

pub(super) async fn fill(mut input: impl AsyncRead + Unpin, filled: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER_BYTES);
        let read = input.read_buf(&mut buffer).await;
        let next = match read {
            Ok(0) => return,
            Ok(_) => Ok(buffer.split().freeze()),
            Err(error) => Err(error),
        };
        let ended = next.is_err();
        if filled.send(next).await.is_err() || ended {
            return;
        }
    }
}

pub(super) fn read_toc(feed: &mut Feed) -> Result<Toc, ArchiveError> {
    Toc::read(feed).map_err(|error| match feed.take_failure() {
        Some(failure) => ArchiveError::Read(failure),
        None => error,
    })
}

fn decode(
    mut feed: Feed,
    found: oneshot::Sender<Arc<Toc>>,
    counters: &Arc<Counters>,
) -> Result<DataSummary, ArchiveError> {
    let toc = Arc::new(read_toc(&mut feed)?);
    if found.send(Arc::clone(&toc)).is_err() {
        return Err(ArchiveError::Interrupted);
    }
    feed.pass_on();
    read_blocks(&mut feed, &toc, counters, &mut Nowhere)
}
