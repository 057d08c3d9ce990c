//! A bucket of an S3 server, and a prefix in it.

mod client;
mod failure;
mod known_payload;
mod lock;
mod multipart;
mod options;
mod part_size;
mod read;
mod upload;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use jiff::Timestamp;

use super::error::LockedObject;
use super::{ByteStream, ObjectInfo, Retention, Store, StoreError, Upload, key};
use crate::api::storage::ObjectLock;
use crate::plan::storage::S3Plan;
use crate::references::References;
use client::Clients;
use options::Options;
use upload::S3Upload;

/// Objects that one request deletes at most.
const DELETE_AT_ONCE: usize = 1000;

/// S3's code for what the credentials may not do, and for what a lock forbids.
const ACCESS_DENIED: &str = "AccessDenied";

/// Where objects are, for requests and for messages.
#[derive(Clone, Debug)]
struct Place {
    endpoint: String,
    bucket: String,
    /// Without slashes at the ends; may be empty.
    prefix: String,
    region: String,
}

impl Place {
    fn location(&self) -> String {
        if self.prefix.is_empty() {
            format!("s3://{}", self.bucket)
        } else {
            format!("s3://{}/{}", self.bucket, self.prefix)
        }
    }

    /// An object in messages, or the whole where no key is given.
    fn object(&self, key: Option<&str>) -> String {
        let location = self.location();
        key.map_or_else(|| location.clone(), |key| format!("{location}/{key}"))
    }

    /// The key in the bucket.
    fn full_key(&self, key: &str) -> String {
        if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.prefix)
        }
    }

    /// The key without the storage's prefix.
    fn short_key(&self, full: &str) -> Option<String> {
        if self.prefix.is_empty() {
            return Some(full.to_owned());
        }
        full.strip_prefix(&self.prefix)?.strip_prefix('/').map(str::to_owned)
    }
}

/// What the store, its uploads and its streams share.
#[derive(Debug)]
struct Connection {
    clients: Clients,
    place: Place,
    options: Options,
    /// The store has answered once.
    answered: AtomicBool,
}

impl Connection {
    fn client(&self) -> &Client {
        if self.answered.load(Ordering::Relaxed) {
            &self.clients.patient
        } else {
            &self.clients.first
        }
    }

    /// Whether TLS already proves that a body arrives as it was sent; over plain HTTP its hash is signed.
    fn is_tls(&self) -> bool {
        self.place.endpoint.starts_with("https:")
    }

    /// Notes that the store answers, and explains an error.
    async fn settle<T, E>(
        &self,
        action: &'static str,
        key: Option<&str>,
        result: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.note(&result);
        match result {
            Ok(output) => Ok(output),
            Err(error) => Err(failure::explain(&self.place, action, key, error).await),
        }
    }

    fn note<T, E>(&self, result: &Result<T, SdkError<E, HttpResponse>>) {
        if matches!(result, Ok(_) | Err(SdkError::ServiceError(_))) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }
}

/// A bucket and a prefix as a store.
#[derive(Clone, Debug)]
pub struct S3Store {
    connection: Arc<Connection>,
}

impl S3Store {
    /// Reads the Secret and the certificates that the plan names. The store itself is not asked yet.
    pub async fn open(plan: &S3Plan, references: &dyn References) -> Result<Self, StoreError> {
        let clients = Clients::new(plan, references).await?;
        let place = Place {
            endpoint: clients.endpoint.clone(),
            bucket: plan.bucket.clone(),
            prefix: plan.prefix.trim_matches('/').to_owned(),
            region: clients.region.clone(),
        };
        Ok(Self {
            connection: Arc::new(Connection {
                clients,
                place,
                options: Options::new(&plan.objects),
                answered: AtomicBool::new(false),
            }),
        })
    }

    /// Keeps the objects of a backup that begins now from deletion, as the lock says.
    #[must_use]
    pub fn retaining(mut self, lock: Option<ObjectLock>, now: Timestamp) -> Self {
        if let Some(connection) = Arc::get_mut(&mut self.connection) {
            connection.options.retention = lock.map(|lock| options::retention(lock, now));
        }
        self
    }

    fn place(&self) -> &Place {
        &self.connection.place
    }

    async fn list_page(
        &self,
        prefix: &str,
        most: i32,
        after: Option<String>,
    ) -> Result<(Vec<ObjectInfo>, Option<String>), StoreError> {
        let request = self.connection.client().list_objects_v2();
        let request = request
            .bucket(&self.place().bucket)
            .prefix(self.place().full_key(prefix))
            .max_keys(most)
            .set_continuation_token(after);
        let page = self.connection.settle("list", None, request.send().await).await?;
        let objects = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            Some(ObjectInfo {
                key: self.place().short_key(object.key.as_deref()?)?,
                size: u64::try_from(object.size.unwrap_or_default()).ok()?,
            })
        });
        Ok((objects.collect(), page.next_continuation_token))
    }

    /// Deletes objects. Returns those that are locked.
    async fn delete_some(&self, keys: &[String]) -> Result<Vec<LockedObject>, StoreError> {
        let denied = self.try_delete(keys).await?;
        if denied.is_empty() {
            return Ok(Vec::new());
        }
        let locked = lock::locked(&self.connection, &denied).await?;
        // Some stores refuse the whole request for one object that is locked.
        let mut others = denied;
        others.retain(|key| locked.iter().all(|locked| locked.key != *key));
        let denied = if locked.is_empty() || others.is_empty() {
            others
        } else {
            self.try_delete(&others).await?
        };
        match denied.first() {
            None => Ok(locked),
            Some(key) => Err(failure::of_code(
                self.place(),
                "delete",
                Some(key),
                ACCESS_DENIED.into(),
            )),
        }
    }

    /// Deletes objects. Returns those that the store denied to delete.
    async fn try_delete(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            key::check(key)?;
            let object = ObjectIdentifier::builder().key(self.place().full_key(key)).build();
            objects.push(object.map_err(|error| self.cannot_build("delete", error))?);
        }
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let request = self.connection.client().delete_objects().bucket(&self.place().bucket);
        let request = request.delete(delete.map_err(|error| self.cannot_build("delete", error))?);
        let output = match self.connection.settle("delete", None, request.send().await).await {
            Err(StoreError::AccessDenied { .. }) => return Ok(keys.to_vec()),
            output => output?,
        };
        let mut denied = Vec::new();
        for error in output.errors.unwrap_or_default() {
            let key = error.key.as_deref().and_then(|full| self.place().short_key(full));
            match (error.code.as_deref(), key) {
                (Some(ACCESS_DENIED), Some(key)) => denied.push(key),
                (code, key) => {
                    let code = code.unwrap_or_default().to_owned();
                    return Err(failure::of_code(self.place(), "delete", key.as_deref(), code));
                }
            }
        }
        Ok(denied)
    }

    fn cannot_build(&self, action: &'static str, error: aws_sdk_s3::error::BuildError) -> StoreError {
        StoreError::Client {
            object: self.place().location(),
            action,
            source: error.into(),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn location(&self) -> String {
        self.place().location()
    }

    async fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        key::check(key)?;
        Ok(Box::new(S3Upload::new(Arc::clone(&self.connection), key, true)))
    }

    async fn create_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        key::check(key)?;
        Ok(Box::new(S3Upload::new(Arc::clone(&self.connection), key, false)))
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<ByteStream, StoreError> {
        key::check(key)?;
        read::read(Arc::clone(&self.connection), key, range).await
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        key::check(key)?;
        let request = self.connection.client().head_object();
        let request = request.bucket(&self.place().bucket).key(self.place().full_key(key));
        let result = request.send().await;
        self.connection.note(&result);
        match result {
            Ok(head) => Ok(Some(ObjectInfo {
                key: key.to_owned(),
                size: u64::try_from(head.content_length.unwrap_or_default()).unwrap_or_default(),
            })),
            Err(error) if failure::answer(&error).is_some_and(|answer| answer.status == 404) => Ok(None),
            Err(error) => Err(failure::explain(self.place(), "read", Some(key), error).await),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let (mut objects, mut next) = self.list_page(prefix, 1000, None).await?;
        while next.is_some() {
            let (page, after) = self.list_page(prefix, 1000, next).await?;
            objects.extend(page);
            next = after;
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut locked = Vec::new();
        for some in keys.chunks(DELETE_AT_ONCE) {
            locked.extend(self.delete_some(some).await?);
        }
        match locked.iter().max_by_key(|object| object.until).cloned() {
            None => Ok(()),
            Some(last) => Err(StoreError::ObjectsLocked {
                location: self.location(),
                objects: locked,
                last,
            }),
        }
    }

    fn retention(&self) -> Option<Retention> {
        self.connection.options.retention
    }

    async fn lock(&self, keys: &[String]) -> Result<(), StoreError> {
        match self.retention() {
            Some(retention) => lock::lock(&self.connection, keys, retention).await,
            None => Ok(()),
        }
    }

    async fn locked_until(&self, key: &str) -> Result<Option<Timestamp>, StoreError> {
        key::check(key)?;
        Ok(lock::find(&self.connection, key).await?.until())
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize, StoreError> {
        multipart::abort_all(&self.connection, prefix).await
    }

    async fn check_access(&self, write: bool) -> Result<(), StoreError> {
        self.list_page("", 1, None).await?;
        if write {
            if self.retention().is_some() {
                lock::check_bucket(&self.connection).await?;
            }
            multipart::check_access(&self.connection).await?;
        }
        Ok(())
    }
}
