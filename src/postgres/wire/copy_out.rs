//! `COPY … TO STDOUT`.

use postgres_protocol::message::backend::{CopyOutResponseBody, Message};
use tokio_postgres::fallible_iterator::FallibleIterator as _;

use super::WireSession;
use super::error::{WireError, error_of};
use super::rows::{Format, RowStream, Step};

/// A running `COPY … TO STDOUT`. Dropped before its end, it leaves the session of no use.
#[derive(Debug)]
pub struct CopyOut<'a> {
    session: &'a mut WireSession,
    rows: RowStream,
    done: bool,
    /// A call failed, or its future was dropped.
    failed: bool,
}

/// What one call of [`CopyOut::read_rows`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsRead {
    /// Rows that this call appended.
    pub rows: u64,
    /// Whether the stream ended, with as many rows as the server counted.
    pub done: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(session: &'a mut WireSession, response: &CopyOutResponseBody) -> Result<Self, WireError> {
        let columns = response.column_formats().count();
        let columns = columns.map_err(|error| WireError::violation(error.to_string()))?;
        let format = match (response.format(), i16::try_from(columns)) {
            (0, _) => Format::Text,
            (1, Ok(fields)) => Format::Binary { fields },
            (format, _) => {
                return Err(WireError::violation(format!(
                    "COPY has format {format} and {columns} columns"
                )));
            }
        };
        Ok(Self {
            session,
            rows: RowStream::new(format),
            done: false,
            failed: false,
        })
    }

    /// Appends the bytes of whole rows to `buffer`: one at least, and more until it holds `limit` bytes or the stream
    /// ended. Header and trailer of the binary format are taken off. Behind the end it appends nothing and says `done`
    /// again. After an error `buffer` may end in a part of a row.
    pub async fn read_rows(&mut self, buffer: &mut Vec<u8>, limit: usize) -> Result<RowsRead, WireError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(WireError::Unfinished);
        }
        let before = self.rows.rows();
        while !self.done {
            let channel = &mut self.session.channel;
            let (used, step) = self.rows.take(channel.received(), buffer, limit)?;
            channel.consume(used);
            match step {
                Step::Full => break,
                Step::Starved => channel.fill().await.map_err(WireError::Lost)?,
                // Rows may follow a notice.
                Step::Message if channel.skip_notice() => {}
                Step::Message => self.read_message().await?,
            }
        }
        self.failed = false;
        Ok(RowsRead {
            rows: self.rows.rows() - before,
            done: self.done,
        })
    }

    /// What is not a row: the end, or an error.
    async fn read_message(&mut self) -> Result<(), WireError> {
        match self.session.message().await? {
            Message::CopyDone => {}
            Message::ErrorResponse(body) => {
                return Err(self.session.read_on_after(error_of(&body)).await);
            }
            _ => return Err(WireError::violation("COPY ended without CopyDone")),
        }
        if !self.rows.is_whole() {
            return Err(WireError::violation("a binary COPY ended without its trailer"));
        }
        let (sent, counted) = (self.rows.rows(), self.session.rows_of_copy().await?);
        if counted != sent {
            return Err(WireError::violation(format!(
                "the server sent {sent} rows and says that it sent {counted}"
            )));
        }
        self.done = true;
        Ok(())
    }
}
