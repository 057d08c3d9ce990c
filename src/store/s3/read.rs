//! Reading an object as a stream that survives cut connections.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures::stream;

use super::{Connection, failure};
use crate::store::error::Change;
use crate::store::{ByteStream, StoreError};

/// How often in a row a stream may break without one byte between.
const MOST_BREAKS: usize = 8;

/// An object, or a part of it, that is being read.
struct Reading {
    connection: Arc<Connection>,
    key: String,
    /// The version that is read: a cut stream never goes on in another one.
    etag: Option<String>,
    body: aws_sdk_s3::primitives::ByteStream,
    /// The next byte that is expected.
    position: u64,
    end: u64,
    backoff: ExponentialBackoff,
}

/// Begins to read; the first request is sent here, so that a missing object is an error of the call.
pub(super) async fn read(
    connection: Arc<Connection>,
    key: &str,
    range: Option<Range<u64>>,
) -> Result<ByteStream, StoreError> {
    let outside = |range: &Range<u64>| StoreError::RangeOutside {
        location: connection.place.location(),
        key: key.to_owned(),
        start: range.start,
        end: range.end,
    };
    match &range {
        Some(range) if range.start > range.end => return Err(outside(range)),
        // HTTP has no empty range: one that is empty needs no request but for the size.
        Some(range) if range.is_empty() => return read_nothing(&connection, key, range.start).await,
        _ => {}
    }
    let output = match get(&connection, key, range.clone(), None).await {
        Err(StoreError::Rejected { status: 416, .. }) => return Err(outside(&range.unwrap_or_default())),
        output => output?,
    };
    let length = u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default();
    let start = range.as_ref().map_or(0, |range| range.start);
    if let Some(range) = range.filter(|range| range.end - range.start != length) {
        return Err(outside(&range)); // S3 cuts a range that is too long
    }
    let reading = Reading {
        key: key.to_owned(),
        etag: output.e_tag,
        body: output.body,
        position: start,
        end: start + length,
        backoff: backoff(),
        connection,
    };
    Ok(Box::pin(stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|bytes| (bytes, reading)))
    })))
}

async fn read_nothing(connection: &Connection, key: &str, at: u64) -> Result<ByteStream, StoreError> {
    let output = get(connection, key, None, None).await?;
    if u64::try_from(output.content_length.unwrap_or_default()).unwrap_or_default() < at {
        return Err(StoreError::RangeOutside {
            location: connection.place.location(),
            key: key.to_owned(),
            start: at,
            end: at,
        });
    }
    Ok(Box::pin(stream::empty()))
}

async fn get(
    connection: &Connection,
    key: &str,
    range: Option<Range<u64>>,
    etag: Option<&str>,
) -> Result<GetObjectOutput, StoreError> {
    let place = &connection.place;
    let result = connection
        .client()
        .get_object()
        .bucket(&place.bucket)
        .key(place.full_key(key))
        .set_range(range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))))
        .set_if_match(etag.map(str::to_owned))
        .send()
        .await;
    connection.note(&result);
    match result {
        Ok(output) => Ok(output),
        Err(error) if failure::answer(&error).is_some_and(|answer| answer.status == 412) => {
            Err(StoreError::ObjectChanged {
                key: key.to_owned(),
                change: Change::Replaced,
            })
        }
        Err(error) => Err(failure::explain(place, "read", Some(key), error).await),
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(MOST_BREAKS)
        .with_jitter()
        .build()
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let error = match self.body.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => {
                    self.position += bytes.len() as u64;
                    self.backoff = backoff();
                    return if self.position > self.end {
                        Err(self.changed(Change::Replaced))
                    } else {
                        Ok(Some(bytes))
                    };
                }
                None if self.position == self.end => return Ok(None),
                None => None,
                // Every byte was there: what is wrong is what they add up to.
                Some(Err(_)) if self.position == self.end => return Err(self.changed(Change::Checksum)),
                Some(Err(error)) => Some(error),
            };
            self.resume(error).await?;
        }
    }

    /// Asks for the rest of the same version.
    async fn resume(&mut self, error: Option<aws_sdk_s3::primitives::ByteStreamError>) -> Result<(), StoreError> {
        let Some(delay) = self.backoff.next() else {
            return Err(match error {
                Some(error) => failure::cut(&self.connection.place, error.into()),
                None => failure::cut(
                    &self.connection.place,
                    std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                ),
            });
        };
        tracing::debug!(
            key = self.key,
            position = self.position,
            "reading broke off and goes on"
        );
        tokio::time::sleep(delay).await;
        let rest = self.position..self.end;
        self.body = get(&self.connection, &self.key, Some(rest), self.etag.as_deref())
            .await?
            .body;
        Ok(())
    }

    fn changed(&self, change: Change) -> StoreError {
        StoreError::ObjectChanged {
            key: self.key.clone(),
            change,
        }
    }
}
