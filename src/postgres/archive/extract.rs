//! Takes an archive apart: what its data blocks hold, decoded.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::blocks::read_blocks;
use super::entry::TocEntry;
use super::error::ArchiveError;
use super::feed::Feed;
use super::reader::{BUFFERS, Counters, DataSummary, fill, read_toc};
use super::toc::Toc;

/// Takes what the data blocks of an archive hold, block after block.
pub trait DataSink: Send {
    /// The block of an entry begins.
    fn begin(&mut self, entry: &TocEntry) -> io::Result<()>;

    /// A large object of the block begins; its data follows.
    fn large_object(&mut self, oid: u32) -> io::Result<()>;

    /// Data of the block, or of its last large object.
    fn write(&mut self, data: &[u8]) -> io::Result<()>;

    /// The block has ended as it should.
    fn end(&mut self) -> io::Result<()>;
}

/// For a reader that only counts.
pub(super) struct Nowhere;

impl DataSink for Nowhere {
    fn begin(&mut self, _: &TocEntry) -> io::Result<()> {
        Ok(())
    }

    fn large_object(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a whole archive and gives what its blocks hold to a sink. What the sink has taken may be used only after this
/// has ended without an error.
pub async fn extract<S: DataSink + 'static>(
    input: impl AsyncRead + Unpin + Send + 'static,
    mut sink: S,
) -> Result<(DataSummary, S), ArchiveError> {
    let (filled, buffers) = mpsc::channel(BUFFERS);
    // What is read is passed on to nobody.
    let (passed_on, _) = mpsc::channel(1);
    let _reading = AbortOnDropHandle::new(tokio::spawn(fill(input, filled)));
    let decoding = tokio::task::spawn_blocking(move || {
        let mut feed = Feed::new(buffers, passed_on);
        let toc: Toc = read_toc(&mut feed)?;
        let summary = read_blocks(&mut feed, &toc, &Arc::<Counters>::default(), &mut sink)?;
        Ok((summary, sink))
    });
    decoding.await.map_err(|_| ArchiveError::Interrupted)?
}
