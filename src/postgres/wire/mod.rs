//! Sessions over PostgreSQL's protocol itself, for COPY in bulk: row by row through tokio-postgres it costs a quarter
//! of a backup.

mod cancel;
mod channel;
mod copy_in;
mod copy_out;
mod error;
mod lend;
mod login;
mod rows;
mod socket;

use bytes::BytesMut;
use postgres_protocol::message::backend::{DataRowBody, Header, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::fallible_iterator::FallibleIterator as _;

pub use cancel::CancelToken;
use channel::Channel;
pub use copy_in::CopyIn;
pub use copy_out::{CopyOut, RowsRead};
pub use error::WireError;
use error::error_of;

use super::connection::{ConnectionError, ConnectionSettings};
use super::sqlstate::ServerError;

/// A row of a simple query: its values as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// Longer messages than PostgreSQL can make (memutils.h, `MaxAllocSize`).
const MAX_MESSAGE: usize = 0x4000_0000;

/// Tag and length of a message.
const HEADER: usize = 5;

/// What the server and we agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server waits for a statement.
    Idle,
    /// A statement runs, or it is not known where in its answer we are.
    Busy,
    /// The connection was cut.
    Lost,
}

/// A session on one server, in which one statement runs at a time. It ends when it is dropped; a statement that runs then
/// is cancelled at the server. A future of it that is dropped in the middle leaves the session of no use.
pub struct WireSession {
    channel: Channel,
    state: State,
    cancel: CancelToken,
}

impl std::fmt::Debug for WireSession {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WireSession")
            .field("state", &self.state)
            .field("server", &self.cancel)
            .finish_non_exhaustive()
    }
}

impl WireSession {
    /// Opens a session in the database that the settings name, else in the maintenance database.
    pub async fn connect(settings: &ConnectionSettings) -> Result<Self, ConnectionError> {
        settings.open().await
    }

    const fn new(channel: Channel, cancel: CancelToken) -> Self {
        Self {
            channel,
            state: State::Idle,
            cancel,
        }
    }

    /// Runs one or more statements as a simple query. Rows are discarded.
    pub async fn execute(&mut self, sql: &str) -> Result<(), WireError> {
        self.begin(&[sql]).await?;
        self.until_ready(|_| Ok(())).await
    }

    /// Runs a simple query; the rows as text values, those of all statements one after another.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        self.begin(&[sql]).await?;
        let mut rows = Vec::new();
        let mut take = |message| {
            if let Message::DataRow(row) = message {
                rows.push(values(&row)?);
            }
            Ok(())
        };
        self.until_ready(&mut take).await?;
        Ok(rows)
    }

    /// Begins a `COPY … TO STDOUT` of the format text or binary. Other statements may stand before it.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, WireError> {
        let wrong = WireError::NotTheCopy("begins no COPY … TO STDOUT");
        self.begin(&[sql]).await?;
        match self.until_copy(&mut Vec::new()).await? {
            Some(Message::CopyOutResponse(response)) => CopyOut::new(self, &response),
            Some(_) => {
                self.send_copy_fail("").await?;
                Err(self.read_on_after(wrong).await)
            }
            None => Err(wrong),
        }
    }

    /// Begins a `COPY … FROM STDIN`. Other statements may stand before it.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, WireError> {
        self.begin(&[sql]).await?;
        self.copy_in_begun().await
    }

    /// Runs `first` as `execute` does and `then` as `copy_in` does, without a wait in between: the server has both at once,
    /// and runs one after the other (manual, "Message Flow", ReadyForQuery). The outer error is that of `first`; the
    /// session is of no use behind it, for the server goes on to `then`.
    pub async fn execute_then_copy_in(
        &mut self,
        first: &str,
        then: &str,
    ) -> Result<Result<CopyIn<'_>, WireError>, WireError> {
        self.begin(&[first, then]).await?;
        let done = self.until_ready(|_| Ok(())).await;
        if self.is_idle() {
            self.state = State::Busy;
        }
        done?;
        Ok(self.copy_in_begun().await)
    }

    async fn copy_in_begun(&mut self) -> Result<CopyIn<'_>, WireError> {
        let mut rows = Vec::new();
        match self.until_copy(&mut rows).await? {
            Some(Message::CopyInResponse(_)) => Ok(CopyIn::new(self, rows)),
            // The rows that come are of no use, and they may be many.
            Some(_) | None => Err(WireError::NotTheCopy("begins no COPY … FROM STDIN")),
        }
    }

    /// Cancels from another task what the session runs.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Whether the session takes a statement: not where an error of the server has ended it.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Sends queries.
    async fn begin(&mut self, queries: &[&str]) -> Result<(), WireError> {
        if !self.is_idle() {
            return Err(WireError::Unfinished);
        }
        let mut messages = BytesMut::new();
        for sql in queries {
            frontend::query(sql, &mut messages).map_err(WireError::Unsendable)?;
        }
        self.state = State::Busy;
        self.send(&messages).await
    }

    /// Reads on until a COPY begins, with the `rows` before it; `None` where the query ends without one.
    async fn until_copy(&mut self, rows: &mut Vec<Row>) -> Result<Option<Message>, WireError> {
        loop {
            match self.message().await? {
                begun @ (Message::CopyOutResponse(_) | Message::CopyInResponse(_)) => return Ok(Some(begun)),
                Message::DataRow(row) => rows.push(values(&row)?),
                Message::ErrorResponse(body) => return Err(self.read_on_after(error_of(&body)).await),
                Message::ReadyForQuery(_) => {
                    self.state = State::Idle;
                    return Ok(None);
                }
                _ => {}
            }
        }
    }

    /// Reads the answer to its end and gives each message to `each`. Returns the first error.
    async fn until_ready(&mut self, mut each: impl FnMut(Message) -> Result<(), WireError>) -> Result<(), WireError> {
        let mut result = Ok(());
        loop {
            let message = match self.message().await {
                Ok(message) => message,
                Err(error) => return result.and(Err(error)),
            };
            let this = match message {
                Message::ReadyForQuery(_) => {
                    self.state = State::Idle;
                    return result;
                }
                Message::ErrorResponse(body) => Err(error_of(&body)),
                Message::CopyInResponse(_) => {
                    self.send_copy_fail("").await?;
                    Err(WireError::NotTheCopy(
                        "begins a COPY … FROM STDIN that was not asked for",
                    ))
                }
                message => each(message),
            };
            result = result.and(this);
        }
    }

    /// Reads the answer to its end behind an error, so that the session can be used again. Returns the error.
    async fn read_on_after(&mut self, error: WireError) -> WireError {
        // What follows is no news: the first error is the reason.
        let _ = self.until_ready(|_| Ok(())).await;
        error
    }

    /// Reads to the end of a COPY: the rows that the server counted.
    async fn rows_of_copy(&mut self) -> Result<u64, WireError> {
        let mut counts = Vec::new();
        let take = |message| {
            if let Message::CommandComplete(body) = message {
                let tag = body.tag().map_err(violation)?;
                counts.push(tag.strip_prefix("COPY ").and_then(|count| count.parse().ok()));
            }
            Ok(())
        };
        self.until_ready(take).await?;
        match counts.as_slice() {
            [Some(count), ..] => Ok(*count),
            _ => Err(WireError::violation("COPY ended without a count of its rows")),
        }
    }

    /// The next message; notices and changed parameters are dropped.
    async fn message(&mut self) -> Result<Message, WireError> {
        loop {
            let mut bytes = BytesMut::new();
            let mut wanted = HEADER;
            while bytes.len() < wanted {
                let received = self.channel.received();
                let part = received.get(..wanted - bytes.len()).unwrap_or(received);
                bytes.extend_from_slice(part);
                let part = part.len();
                self.channel.consume(part);
                if bytes.len() < wanted {
                    self.fill().await?;
                } else if wanted == HEADER {
                    wanted = length(&bytes)?;
                }
            }
            match Message::parse(&mut bytes).map_err(violation)? {
                Some(Message::NoticeResponse(body)) => {
                    let notice = ServerError::read(body.fields()).map_err(violation)?;
                    tracing::debug!(sqlstate = notice.code().code(), "notice of the server");
                }
                Some(Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Some(message) => return Ok(message),
                None => return Err(WireError::violation("a message is shorter than it says")),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), WireError> {
        self.channel.fill().await.map_err(|error| {
            self.state = State::Lost;
            WireError::Lost(error)
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.send_parts(&[bytes]).await
    }

    async fn send_parts(&mut self, parts: &[&[u8]]) -> Result<(), WireError> {
        match self.channel.send(parts).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.reason(error).await),
        }
    }

    /// Ends a COPY … FROM STDIN that nobody feeds, or that shall not be.
    async fn send_copy_fail(&mut self, why: &str) -> Result<(), WireError> {
        let mut fail = BytesMut::new();
        frontend::copy_fail(&why.replace('\0', " "), &mut fail).map_err(WireError::Unsendable)?;
        self.send(&fail).await
    }

    /// Whether the server has answered before it was asked to.
    async fn has_answer(&mut self) -> Result<bool, WireError> {
        match self.channel.has_answer() {
            Ok(has) => Ok(has),
            Err(error) => Err(self.reason(error).await),
        }
    }

    /// What the server said before it cut the connection, else `error`.
    async fn reason(&mut self, error: std::io::Error) -> WireError {
        loop {
            match self.message().await {
                Ok(Message::ErrorResponse(body)) => {
                    self.state = State::Lost;
                    return error_of(&body);
                }
                Ok(_) => {}
                Err(_) => return WireError::Lost(error),
            }
        }
    }
}

impl Drop for WireSession {
    fn drop(&mut self) {
        match self.state {
            State::Idle => {
                let mut terminate = BytesMut::new();
                frontend::terminate(&mut terminate);
                self.channel.try_send(&terminate);
            }
            State::Busy => self.cancel.cancel_in_background(),
            State::Lost => {}
        }
    }
}

/// The values of a row of a simple query.
fn values(row: &DataRowBody) -> Result<Row, WireError> {
    let values = row.ranges().map(|range| {
        let bytes = range.and_then(|range| row.buffer().get(range));
        let text = bytes.map(|bytes| String::from_utf8(bytes.to_vec())).transpose();
        text.map_err(std::io::Error::other)
    });
    values.collect().map_err(violation)
}

fn violation(error: std::io::Error) -> WireError {
    WireError::violation(error.to_string())
}

/// Bytes of the message that begins so.
fn length(header: &[u8]) -> Result<usize, WireError> {
    let header = Header::parse(header).map_err(violation)?;
    let length = header
        .and_then(|header| usize::try_from(header.len()).ok())
        .unwrap_or_default()
        + 1;
    if length > MAX_MESSAGE {
        return Err(WireError::violation(format!(
            "a message says that it has {length} bytes"
        )));
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
