//! Where the rows of a COPY come from: a worker's own session, or, where a change of definitions waits for the table, the
//! session of the exporter, which alone has the lock already.

use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio_postgres::CopyOutStream;

use super::settings;
use crate::agent::backup::exporter::Exporter;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::postgres::chunking::{BINARY_HEADER, BINARY_TRAILER};
use crate::postgres::wire::{CopyOut, RowsRead};
use crate::store::manifest::RowFormat;

/// `doing` of what fails here.
pub(super) const READING: &str = "reading the rows";

/// The rows of one COPY.
pub(super) enum Rows<'a> {
    /// In the worker's own session.
    OfWorker(CopyOut<'a>),
    /// In the exporter's.
    OfExporter(Box<ExporterRows<'a>>),
}

impl Rows<'_> {
    /// Appends whole rows to `buffer` until it holds `limit` bytes or there are no more.
    pub async fn read(&mut self, buffer: &mut Vec<u8>, limit: usize, table: &str) -> Result<RowsRead, Refusal> {
        match self {
            Self::OfWorker(rows) => rows
                .read_rows(buffer, limit)
                .await
                .map_err(|error| error.refusal(READING, Some(table))),
            Self::OfExporter(rows) => rows.read(buffer, limit, table).await,
        }
    }
}

/// Rows that come through the exporter's session. While they do, nobody else asks it anything.
pub(super) struct ExporterRows<'a> {
    exporter: &'a Exporter,
    _turn: tokio::sync::MutexGuard<'a, ()>,
    stream: Pin<Box<CopyOutStream>>,
    messages: Messages,
    ended: bool,
}

impl<'a> ExporterRows<'a> {
    /// Begins the COPY as soon as no other goes through the session.
    pub async fn begin(exporter: &'a Exporter, sql: &str, format: RowFormat, table: &str) -> Result<Self, Refusal> {
        let turn = exporter.copying().await;
        let session = exporter.session();
        let failed = |error: tokio_postgres::Error| session.refusal(&error, READING, Some(table));
        let encoding = settings::client_encoding(&exporter.encoding);
        let prepare = settings::statements(session.server_major(), encoding);
        session.batch_execute(&prepare).await.map_err(failed)?;
        let stream = session.copy_out(sql).await.map_err(failed)?;
        Ok(Self {
            exporter,
            _turn: turn,
            stream: Box::pin(stream),
            messages: Messages { format, begun: false },
            ended: false,
        })
    }

    async fn read(&mut self, buffer: &mut Vec<u8>, limit: usize, table: &str) -> Result<RowsRead, Refusal> {
        let mut rows = 0;
        while buffer.len() < limit && !self.ended {
            let Some(message) = self.stream.next().await else {
                self.ended = true;
                // The catalogs are read in this session too, in the encoding that the client is made for.
                let session = self.exporter.session();
                let reset = session.batch_execute("SET client_encoding = 'UTF8'").await;
                reset.map_err(|error| session.refusal(&error, READING, Some(table)))?;
                break;
            };
            let message = message.map_err(|error| self.exporter.session().refusal(&error, READING, Some(table)))?;
            if let Some(row) = self.messages.row(message)? {
                buffer.extend_from_slice(&row);
                rows += 1;
            }
        }
        Ok(RowsRead { rows, done: self.ended })
    }
}

/// What the messages of one COPY are.
struct Messages {
    format: RowFormat,
    begun: bool,
}

impl Messages {
    /// A message is one row; the first one of a binary stream begins with the header, and the trailer is one of its own,
    /// or follows the header where there is no row (`CopySendEndOfRow`). A row cannot look like the trailer, for it
    /// begins with the number of its columns.
    fn row(&mut self, mut message: Bytes) -> Result<Option<Bytes>, Refusal> {
        if self.format == RowFormat::Text {
            return Ok(Some(message));
        }
        if !self.begun {
            self.begun = true;
            if !message.starts_with(BINARY_HEADER) {
                return Err(Refusal::permanent(
                    reasons::INTERNAL,
                    "The server began a binary COPY in a way that this release does not know.",
                ));
            }
            message = message.split_off(BINARY_HEADER.len());
        }
        Ok((!message.is_empty() && message != BINARY_TRAILER).then_some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(format: RowFormat, messages: &[&[u8]]) -> Vec<Bytes> {
        let mut of = Messages { format, begun: false };
        let each = messages
            .iter()
            .map(|message| of.row(Bytes::copy_from_slice(message)).unwrap());
        each.flatten().collect()
    }

    #[test]
    fn header_and_trailer_are_taken_off_and_rows_stay_as_they_are() {
        let row: &[u8] = b"\0\x01\0\0\0\x01x";
        let first = [BINARY_HEADER, row].concat();
        assert_eq!(rows(RowFormat::Binary, &[&first, row, BINARY_TRAILER]), [row, row]);
        let empty = [BINARY_HEADER, BINARY_TRAILER].concat();
        assert_eq!(rows(RowFormat::Binary, &[&empty]), [] as [Bytes; 0]);
        assert_eq!(rows(RowFormat::Text, &[b"1\n", b"\n"]), [&b"1\n"[..], b"\n"]);
    }

    #[test]
    fn a_binary_stream_without_its_header_is_refused() {
        let mut messages = Messages {
            format: RowFormat::Binary,
            begun: false,
        };
        assert!(messages.row(Bytes::from_static(b"\0\x01")).is_err());
    }
}
