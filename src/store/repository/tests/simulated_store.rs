//! A store in memory behind a bad network. Time is virtual.
//!
//! It looks at every change: a manifest whose chunks are not all there is a violation, whichever came first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::error::{ConnectionFailure, LockedObject};
use crate::store::{ByteStream, ObjectInfo, Retention, Store, StoreError, StoredObject, Upload, layout};

/// What a client suffers. Chances are in 1000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// Longest time that a request or an answer takes.
    pub latency: Duration,
    /// A request that never arrives.
    pub lost_request: u64,
    /// An answer that never arrives: the change is made.
    pub lost_answer: u64,
    /// The whole process sleeps before it sends a request.
    pub suspended: u64,
    /// Longest time that it sleeps.
    pub suspension: Duration,
}

impl Network {
    pub fn calm() -> Self {
        Self::default()
    }
}

/// Numbers that look random, the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }

    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.roll(u64::try_from(most.as_millis()).unwrap() + 1))
    }
}

#[derive(Debug, Default)]
struct Objects {
    all: BTreeMap<String, Bytes>,
    /// Objects that each manifest names.
    named: BTreeMap<String, Vec<String>>,
    /// Objects that cannot be deleted.
    locked: BTreeSet<String>,
    violations: Vec<String>,
}

impl Objects {
    fn put(&mut self, key: &str, content: Bytes) {
        if layout::snapshot_of_manifest(key).is_some() {
            let named = named(&content);
            for object in named.iter().filter(|object| !self.all.contains_key(*object)) {
                self.violations.push(format!("{key} is written without {object}"));
            }
            self.named.insert(key.to_owned(), named);
        }
        self.all.insert(key.to_owned(), content);
    }

    fn delete(&mut self, key: &str) {
        self.all.remove(key);
        self.named.remove(key);
        for (manifest, named) in &self.named {
            if named.iter().any(|object| object == key) {
                self.violations
                    .push(format!("{key} is deleted, which {manifest} names"));
            }
        }
    }
}

fn named(manifest: &[u8]) -> Vec<String> {
    // One that cannot be read names nothing.
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let relations = manifest["databases"][0]["relations"].as_array().cloned();
    let chunks = relations
        .into_iter()
        .flatten()
        .flat_map(|relation| relation["chunks"]["chunks"].as_array().cloned().unwrap_or_default());
    chunks
        .map(|chunk| chunk["object"].as_str().unwrap().to_owned())
        .collect()
}

/// What the clients share.
#[derive(Clone, Debug)]
pub struct SimulatedStore {
    objects: Arc<Mutex<Objects>>,
    /// Of the requests of all clients.
    network: Network,
}

impl SimulatedStore {
    pub fn new(network: Network) -> Self {
        Self {
            objects: Arc::default(),
            network,
        }
    }

    /// The store as one process sees it.
    pub fn client(&self, seed: u64, network: Network) -> Arc<dyn Store> {
        Arc::new(Client {
            objects: Arc::clone(&self.objects),
            network,
            dice: Arc::new(Mutex::new(Dice::new(seed))),
            suspended_until: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// As one process sees it that suffers what all do.
    pub fn suffering_client(&self, seed: u64) -> Arc<dyn Store> {
        self.client(seed, self.network)
    }

    pub fn violations(&self) -> Vec<String> {
        self.objects.lock().unwrap().violations.clone()
    }

    /// From now on these are all that cannot be deleted.
    pub fn lock(&self, keys: &[String]) {
        self.objects.lock().unwrap().locked = keys.iter().cloned().collect();
    }

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects
            .all
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }
}

#[derive(Clone, Debug)]
struct Client {
    objects: Arc<Mutex<Objects>>,
    network: Network,
    dice: Arc<Mutex<Dice>>,
    suspended_until: Arc<Mutex<Instant>>,
}

impl Client {
    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    fn chance(&self, of_1000: u64) -> bool {
        of_1000 > 0 && self.dice().roll(1000) < of_1000
    }

    async fn awake(&self) {
        loop {
            let until = *self.suspended_until.lock().unwrap();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn lost() -> StoreError {
        StoreError::Unreachable {
            endpoint: "simulated".into(),
            failure: ConnectionFailure::Lost,
            source: "lost".into(),
        }
    }

    /// Sends a request. What is on its way arrives, also when the client has gone meanwhile.
    async fn request<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Objects) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.chance(self.network.suspended) {
            let end = Instant::now() + self.dice().up_to(self.network.suspension);
            *self.suspended_until.lock().unwrap() = end;
        }
        self.awake().await;
        let (there, back) = {
            let mut dice = self.dice();
            (dice.up_to(self.network.latency), dice.up_to(self.network.latency))
        };
        let lost_request = self.chance(self.network.lost_request);
        let objects = Arc::clone(&self.objects);
        let arrives = tokio::spawn(async move {
            sleep(there).await;
            (!lost_request).then(|| change(&mut objects.lock().unwrap()))
        });
        let answer = arrives.await.unwrap();
        sleep(back).await;
        self.awake().await;
        match answer {
            Some(answer) if !self.chance(self.network.lost_answer) => Ok(answer),
            _ => Err(Self::lost()),
        }
    }

    fn missing(key: &str) -> StoreError {
        StoreError::ObjectMissing {
            location: "simulated".into(),
            key: key.to_owned(),
        }
    }
}

#[async_trait]
impl Store for Client {
    fn location(&self) -> String {
        "simulated".into()
    }

    async fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Uploading {
            client: self.clone(),
            key: key.to_owned(),
            content: BytesMut::new(),
            replace: true,
        }))
    }

    async fn create_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Uploading {
            client: self.clone(),
            key: key.to_owned(),
            content: BytesMut::new(),
            replace: false,
        }))
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<ByteStream, StoreError> {
        let wanted = key.to_owned();
        let found = self.request(move |objects| objects.all.get(&wanted).cloned()).await?;
        let content = found.ok_or_else(|| Self::missing(key))?;
        let range = range.unwrap_or(0..content.len() as u64);
        if range.start > range.end || range.end > content.len() as u64 {
            return Err(StoreError::RangeOutside {
                location: self.location(),
                key: key.to_owned(),
                start: range.start,
                end: range.end,
            });
        }
        let (start, end) = (
            usize::try_from(range.start).unwrap(),
            usize::try_from(range.end).unwrap(),
        );
        let bytes = content.slice(start..end);
        Ok(Box::pin(futures::stream::iter([Ok(bytes)])))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let key = key.to_owned();
        self.request(move |objects| {
            objects.all.get(&key).map(|content| ObjectInfo {
                size: content.len() as u64,
                key,
            })
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = prefix.to_owned();
        self.request(move |objects| {
            let all = objects.all.iter().filter(|(key, _)| key.starts_with(&prefix));
            all.map(|(key, content)| ObjectInfo {
                key: key.clone(),
                size: content.len() as u64,
            })
            .collect()
        })
        .await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        for key in keys {
            let delete = key.clone();
            let locked = self.request(move |objects| {
                let locked = objects.locked.contains(&delete);
                if !locked {
                    objects.delete(&delete);
                }
                locked
            });
            if locked.await? {
                kept.push(LockedObject {
                    key: key.clone(),
                    until: Timestamp::MAX,
                });
            }
        }
        match kept.last().cloned() {
            None => Ok(()),
            Some(last) => Err(StoreError::ObjectsLocked {
                location: self.location(),
                objects: kept,
                last,
            }),
        }
    }

    fn retention(&self) -> Option<Retention> {
        None
    }

    async fn lock(&self, _keys: &[String]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn locked_until(&self, _key: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn abort_uploads(&self, _prefix: &str) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn check_access(&self, _write: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Uploading {
    client: Client,
    key: String,
    content: BytesMut,
    replace: bool,
}

#[async_trait]
impl Upload for Uploading {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<StoredObject, StoreError> {
        let Self {
            client,
            key,
            content,
            replace,
        } = *self;
        let content = content.freeze();
        let stored = StoredObject {
            key: key.clone(),
            size: content.len() as u64,
            sha256: hex::encode(Sha256::digest(&content)),
        };
        let wanted = key.clone();
        let put = move |objects: &mut Objects| {
            let free = replace || !objects.all.contains_key(&wanted);
            if free {
                objects.put(&wanted, content);
            }
            free
        };
        if client.request(put).await? {
            Ok(stored)
        } else {
            Err(StoreError::ObjectExists {
                location: client.location(),
                key,
            })
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}
