//! Object lock: objects that nobody can delete for a while.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::{Connection, failure, options};
use crate::api::storage::ObjectLockMode as Mode;
use crate::store::error::LockedObject;
use crate::store::{Retention, StoreError};

/// Requests at once.
const AT_ONCE: usize = 16;

/// Whether the bucket has object lock at all.
pub(super) async fn check_bucket(connection: &Connection) -> Result<(), StoreError> {
    let place = &connection.place;
    let missing = || StoreError::ObjectLockMissing {
        bucket: place.bucket.clone(),
    };
    let request = connection.client().get_object_lock_configuration();
    let result = request.bucket(&place.bucket).send().await;
    if let Err(error) = &result
        && let Some(answer) = failure::answer(error)
        && matches!(
            (answer.code.as_str(), answer.status),
            (
                "ObjectLockConfigurationNotFoundError" | "NotImplemented" | "MethodNotAllowed",
                _
            ) | ("", 405 | 501)
        )
    {
        return Err(missing());
    }
    let found = connection.settle("read the object lock of", None, result).await?;
    let enabled = found
        .object_lock_configuration
        .and_then(|found| found.object_lock_enabled);
    if enabled == Some(ObjectLockEnabled::Enabled) {
        Ok(())
    } else {
        Err(missing())
    }
}

/// Keeps objects from deletion. One that is kept for as long already, or longer, is left as it is.
pub(super) async fn lock(connection: &Connection, keys: &[String], retention: Retention) -> Result<(), StoreError> {
    futures::stream::iter(keys.to_vec())
        .map(|key| async move { lock_one(connection, &key, retention).await })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn lock_one(connection: &Connection, key: &str, retention: Retention) -> Result<(), StoreError> {
    let place = &connection.place;
    let wanted = ObjectLockRetention::builder()
        .mode(match retention.mode {
            Mode::Governance => aws_sdk_s3::types::ObjectLockRetentionMode::Governance,
            Mode::Compliance => aws_sdk_s3::types::ObjectLockRetentionMode::Compliance,
        })
        .retain_until_date(options::date(retention.until))
        .build();
    let request = connection.client().put_object_retention();
    let request = request.bucket(&place.bucket).key(place.full_key(key)).retention(wanted);
    match connection.settle("lock", Some(key), request.send().await).await {
        // A retention is never made shorter; another backup may have asked for a longer one.
        Err(StoreError::AccessDenied { object, action, code }) => match find(connection, key).await?.retention {
            Some(found) if found.covers(retention) => Ok(()),
            _ => Err(StoreError::AccessDenied { object, action, code }),
        },
        result => result.map(drop),
    }
}

/// What keeps an object from deletion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    retention: Option<Retention>,
    /// Held until somebody lets it go.
    legal_hold: bool,
}

impl Found {
    fn of(head: &HeadObjectOutput) -> Self {
        let mode = match head.object_lock_mode {
            Some(ObjectLockMode::Governance) => Some(Mode::Governance),
            Some(ObjectLockMode::Compliance) => Some(Mode::Compliance),
            _ => None,
        };
        let until = head.object_lock_retain_until_date;
        let until = until.and_then(|until| Timestamp::from_second(until.secs()).ok());
        Self {
            retention: mode.zip(until).map(|(mode, until)| Retention { mode, until }),
            legal_hold: head.object_lock_legal_hold_status == Some(ObjectLockLegalHoldStatus::On),
        }
    }

    /// Until when, for ever as far as anybody knows where it is held; `None` where it may be deleted now.
    pub(super) fn until(self) -> Option<Timestamp> {
        if self.legal_hold {
            return Some(Timestamp::MAX);
        }
        let until = self.retention?.until;
        (until > Timestamp::now()).then_some(until)
    }
}

/// What keeps an object from deletion; nothing does that is not there.
pub(super) async fn find(connection: &Connection, key: &str) -> Result<Found, StoreError> {
    let place = &connection.place;
    let request = connection.client().head_object();
    let result = request.bucket(&place.bucket).key(place.full_key(key)).send().await;
    if let Err(error) = &result
        && failure::answer(error).is_some_and(|answer| answer.status == 404)
    {
        return Ok(Found::default());
    }
    Ok(Found::of(&connection.settle("read", Some(key), result).await?))
}

/// Those of the objects that are locked.
pub(super) async fn locked(connection: &Connection, keys: &[String]) -> Result<Vec<LockedObject>, StoreError> {
    futures::stream::iter(keys.to_vec())
        .map(|key| async move {
            let until = find(connection, &key).await?.until();
            Ok(until.map(|until| LockedObject { key, until }))
        })
        .buffered(AT_ONCE)
        .try_filter_map(|locked| std::future::ready(Ok(locked)))
        .try_collect()
        .await
}
