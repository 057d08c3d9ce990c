//! Whether the backups of a storage can be restored, and which are hurt where something is damaged.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::config::{self, Configuration};
use super::described::{Described, described};
use super::key_hash::KeyHash;
use super::references::{self, Found, SnapshotManifest};
use super::sender::blocking;
use super::{ChunkDamage, Repository, RepositoryError, row_count};
use crate::store::encryption::{self, EncryptionError, Identities, Recipients};
use crate::store::manifest::ObjectManifest;
use crate::store::{Store, StoreError, layout};

/// Objects that are read at once.
const AT_ONCE: usize = 4;

/// How deep a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckLevel {
    /// Every object that a manifest names is there, with its size.
    Sizes,
    /// Its bytes are those that were stored (SHA-256).
    Hashes,
    /// What is encrypted is decrypted; every chunk is decoded, held against its name, and its rows are counted.
    Rows,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Snapshots that were checked.
    pub snapshots: u64,
    /// Objects of snapshots that were checked.
    pub objects: u64,
    /// Chunks that were checked, each once.
    pub chunks: u64,
    /// Bytes that were read for it.
    pub bytes_read: u64,
    /// What is damaged.
    pub damages: Vec<Damage>,
}

/// A damaged object, or a chunk in one.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// Key of the object.
    pub object: String,
    /// Name of the chunk, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk: Option<String>,
    /// What is wrong, in a sentence.
    pub problem: String,
    /// The backups that it hurts.
    pub hurts: Vec<Hurt>,
}

/// What of a backup is hurt.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Hurt {
    /// Snapshot.
    pub snapshot: String,
    /// Namespace and name of the backup; empty where the manifest cannot be read.
    pub backup: String,
    /// Tables, each as `database.schema.table`; empty where all of the snapshot or of a database is hurt.
    pub tables: Vec<String>,
}

/// Checks every backup of a storage, also one without chunks. Damage is in the report; an error means that the check
/// itself could not be done. Identities are needed at the level `Rows`, for every backup that is encrypted.
pub async fn check(
    store: &Arc<dyn Store>,
    level: CheckLevel,
    identities: Option<Arc<Identities>>,
) -> Result<CheckReport, RepositoryError> {
    let mut check = Check {
        store,
        level,
        identities,
        repositories: HashMap::new(),
        sizes: HashMap::new(),
        report: CheckReport::default(),
    };
    // The manifests before the objects: a backup that is finished meanwhile must not look damaged.
    let (objects, chunks) = check.read_manifests().await?;
    if !chunks.is_empty() {
        check.open_repositories(&chunks).await?;
    }
    check.list_sizes().await?;
    let bad_objects = check.check_objects(&objects).await?;
    let bad_chunks = check.check_chunks(chunks).await?;
    if !bad_objects.is_empty() || !bad_chunks.is_empty() {
        check.name_hurt(bad_objects, bad_chunks).await?;
    }
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Arc<dyn Store>,
    level: CheckLevel,
    identities: Option<Arc<Identities>>,
    /// By the recipients of the chunks.
    repositories: HashMap<Arc<[String]>, Repository>,
    sizes: HashMap<KeyHash, u64>,
    report: CheckReport,
}

impl Check<'_> {
    /// Reads what every manifest names. One that cannot be read is a damage of its own.
    async fn read_manifests(&mut self) -> Result<(Vec<CheckedObject>, HashSet<Described>), RepositoryError> {
        let (mut objects, mut chunks) = (Vec::new(), HashSet::new());
        for snapshot in references::list(&**self.store).await? {
            match references::read(&**self.store, &snapshot).await {
                Ok(Found::Manifest(manifest)) => {
                    self.report.snapshots += 1;
                    self.require_identity(&manifest)?;
                    chunks.extend(described(&manifest).map(|(_, chunk)| chunk));
                    let encrypted = !manifest.recipients().is_empty();
                    let each = manifest.objects.into_iter();
                    objects.extend(each.map(|object| CheckedObject { object, encrypted }));
                }
                Ok(Found::Abandoned(_) | Found::Nothing) => {}
                Err(RepositoryError::Unreadable { key, problem }) => self.report.damages.push(Damage {
                    object: key,
                    chunk: None,
                    problem: format!("the manifest cannot be read: {problem}"),
                    hurts: vec![Hurt {
                        snapshot,
                        backup: String::new(),
                        tables: Vec::new(),
                    }],
                }),
                Err(error) => return Err(error),
            }
        }
        Ok((objects, chunks))
    }

    /// A backup that nobody here can decrypt cannot be checked so deeply; that is found before anything is read of it.
    fn require_identity(&self, manifest: &SnapshotManifest) -> Result<(), RepositoryError> {
        let recipients = manifest.recipients();
        if self.level < CheckLevel::Rows || recipients.is_empty() {
            return Ok(());
        }
        let refusal = match &self.identities {
            None => encryption::identity_missing(&manifest.snapshot, recipients),
            Some(identities) if !identities.fit(recipients) => {
                encryption::identity_wrong(&manifest.snapshot, recipients)
            }
            Some(_) => return Ok(()),
        };
        Err(RepositoryError::Identity(refusal))
    }

    async fn open_repositories(&mut self, chunks: &HashSet<Described>) -> Result<(), RepositoryError> {
        let found = Configuration::find(&**self.store).await?;
        let found = found.ok_or_else(|| config::missing(&**self.store))?;
        let repository = Repository::of(Arc::clone(self.store), found);
        let sets: BTreeSet<_> = chunks.iter().map(|chunk| &chunk.recipients).collect();
        for set in sets {
            let of_set = match Recipients::parse(set) {
                Ok(recipients) => repository.encrypted(recipients, self.identities.clone()),
                Err(EncryptionError::Count { found: 0 }) => repository.plain(),
                Err(error) => return Err(error.into()),
            };
            self.repositories.insert(Arc::clone(set), of_set);
        }
        Ok(())
    }

    async fn list_sizes(&mut self) -> Result<(), RepositoryError> {
        for prefix in [layout::SNAPSHOTS, layout::CHUNKS, layout::PACKS] {
            let objects = self.store.list(prefix).await?;
            self.sizes
                .extend(objects.iter().map(|object| (KeyHash::of(&object.key), object.size)));
        }
        Ok(())
    }

    /// The archives and texts of the snapshots. Returns what is wrong by key.
    async fn check_objects(&mut self, objects: &[CheckedObject]) -> Result<HashMap<String, String>, RepositoryError> {
        let mut bad = HashMap::new();
        for CheckedObject { object, encrypted } in objects {
            self.report.objects += 1;
            let problem = match self.sizes.get(&KeyHash::of(&object.key)) {
                None => Some("the object is missing".to_owned()),
                Some(size) if *size != object.size => Some(format!("it has {size} bytes instead of {}", object.size)),
                Some(_) if self.level >= CheckLevel::Hashes => {
                    self.report.bytes_read += object.size;
                    let decrypt = *encrypted && self.level == CheckLevel::Rows;
                    let identities = self.identities.as_ref().filter(|_| decrypt);
                    read_object(&**self.store, object, identities).await?
                }
                Some(_) => None,
            };
            bad.extend(problem.map(|problem| (object.key.clone(), problem)));
        }
        Ok(bad)
    }

    async fn check_chunks(
        &mut self,
        chunks: HashSet<Described>,
    ) -> Result<HashMap<Described, ChunkDamage>, RepositoryError> {
        self.report.chunks = chunks.len() as u64;
        let (mut bad, mut whole) = (HashMap::new(), Vec::new());
        for chunk in chunks {
            match self.size_damage(&chunk) {
                Some(damage) => {
                    bad.insert(chunk, damage);
                }
                None if self.level >= CheckLevel::Hashes => {
                    self.report.bytes_read += chunk.stored_bytes;
                    whole.push(chunk);
                }
                None => {}
            }
        }
        // Neighbours in a pack one after another.
        whole.sort_unstable_by(|one, other| (&one.object, one.offset).cmp(&(&other.object, other.offset)));
        let this = &*self;
        let mut checked = futures::stream::iter(whole)
            .map(|chunk| async move { Ok::<_, RepositoryError>((this.read_damage(&chunk).await?, chunk)) })
            .buffer_unordered(AT_ONCE);
        while let Some((damage, chunk)) = checked.try_next().await? {
            bad.extend(damage.map(|damage| (chunk, damage)));
        }
        Ok(bad)
    }

    fn size_damage(&self, chunk: &Described) -> Option<ChunkDamage> {
        let Some(size) = self.sizes.get(&KeyHash::of(&chunk.object)) else {
            return Some(ChunkDamage::Missing);
        };
        let end = chunk.offset.saturating_add(chunk.stored_bytes);
        let fits = if chunk.object.starts_with(layout::PACKS) {
            end <= *size
        } else {
            chunk.offset == 0 && end == *size
        };
        (!fits).then_some(ChunkDamage::Truncated {
            start: chunk.offset,
            end,
        })
    }

    async fn read_damage(&self, described: &Described) -> Result<Option<ChunkDamage>, RepositoryError> {
        let chunk = described.chunk();
        let Some(repository) = self.repositories.get(&described.recipients) else {
            return Ok(None);
        };
        let result = match self.level {
            CheckLevel::Rows => repository.read_chunk(&chunk).await.map(Some),
            CheckLevel::Sizes | CheckLevel::Hashes => repository.read_proved(&chunk).await.map(|_| None),
        };
        let stream = match result {
            Ok(stream) => stream,
            Err(RepositoryError::Damaged { damage, .. }) => return Ok(Some(damage)),
            Err(error) => return Err(error),
        };
        let Some(stream) = stream else {
            return Ok(None);
        };
        let format = described.format;
        Ok(match blocking(move || row_count::count(&stream, format)).await? {
            Some(found) if found == chunk.rows => None,
            Some(found) => Some(ChunkDamage::Rows {
                expected: chunk.rows,
                found,
            }),
            None => Some(ChunkDamage::Stream),
        })
    }

    /// Reads the manifests once more and says whom the damage hurts. What no manifest names any more hurts nobody: its
    /// backup was deleted meanwhile.
    async fn name_hurt(
        &mut self,
        bad_objects: HashMap<String, String>,
        bad_chunks: HashMap<Described, ChunkDamage>,
    ) -> Result<(), RepositoryError> {
        let mut objects: HashMap<&str, Vec<Hurt>> = HashMap::new();
        let mut chunks: HashMap<&Described, Vec<Hurt>> = HashMap::new();
        for snapshot in references::list(&**self.store).await? {
            let Ok(Found::Manifest(manifest)) = references::read(&**self.store, &snapshot).await else {
                continue;
            };
            let hurt = |tables| Hurt {
                snapshot: snapshot.clone(),
                backup: format!("{}/{}", manifest.backup.namespace, manifest.backup.name),
                tables,
            };
            for object in &manifest.objects {
                if let Some((key, _)) = bad_objects.get_key_value(&object.key) {
                    objects.entry(key).or_default().push(hurt(Vec::new()));
                }
            }
            for (table, chunk) in described(&manifest) {
                let Some((chunk, _)) = bad_chunks.get_key_value(&chunk) else {
                    continue;
                };
                let hurts = chunks.entry(chunk).or_default();
                match hurts.last_mut().filter(|last| last.snapshot == snapshot) {
                    Some(last) if last.tables.contains(&table) => {}
                    Some(last) => last.tables.push(table),
                    None => hurts.push(hurt(vec![table])),
                }
            }
        }
        let of_objects = objects.into_iter().map(|(key, hurts)| Damage {
            object: key.to_owned(),
            chunk: None,
            problem: bad_objects.get(key).cloned().unwrap_or_default(),
            hurts,
        });
        let of_chunks = chunks.into_iter().map(|(chunk, hurts)| Damage {
            object: chunk.object.clone(),
            chunk: Some(chunk.name.clone()),
            problem: bad_chunks.get(chunk).map(ToString::to_string).unwrap_or_default(),
            hurts,
        });
        self.report.damages.extend(of_objects.chain(of_chunks));
        self.report
            .damages
            .sort_by(|one, other| (&one.object, &one.chunk).cmp(&(&other.object, &other.chunk)));
        Ok(())
    }
}

/// An object of a snapshot.
struct CheckedObject {
    object: ObjectManifest,
    encrypted: bool,
}

/// What is wrong with the bytes of an object.
async fn read_object(
    store: &dyn Store,
    object: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<Option<String>, RepositoryError> {
    let read = async {
        let mut stream = encryption::content(store, object, identities).await?;
        while stream.try_next().await?.is_some() {}
        Ok::<_, StoreError>(())
    };
    match read.await {
        Ok(()) => Ok(None),
        Err(StoreError::ObjectChanged { change, .. }) => Ok(Some(change.to_string())),
        Err(StoreError::ObjectMissing { .. }) => Ok(Some("the object is missing".to_owned())),
        Err(StoreError::IdentityWrong { .. }) => Ok(Some("none of the given identities opens it".to_owned())),
        Err(error) => Err(error.into()),
    }
}
