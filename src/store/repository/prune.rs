//! Deleting chunks and packs that no manifest names.
//!
//! A prune may be killed at any moment, several may run at once, and backups go on beside them. That no backup loses
//! a chunk follows from the order of reads and writes in the store alone:
//! 1. What may go stands in a list (`condemned`) before it is deleted. A backup that begins later reads the list, and
//!    relies on nothing in it.
//! 2. A backup that began earlier has a lock. As long as one is there whose backup has not seen the list, nothing in
//!    the list is deleted. A lock goes after the commit: the manifests are read after the locks.
//! 3. A lock that does not change for a while may belong to a backup that died, or to one that sleeps. Before it is
//!    passed over, the place of the manifest that it was going to write is taken: the backup cannot commit any more.
//!    The store decides between the two.
//! 4. No key is ever written again after its deletion: a deletion that comes late hurts nobody.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::condemned::{self, Condemned};
use super::key_hash::KeyHash;
use super::lock::Lock;
use super::watch::{self, Watched};
use super::{Repository, RepositoryError, references};
use crate::store::{ObjectInfo, StoreError, layout};

/// Objects that one request deletes.
const BATCH: usize = 1000;

/// Lists of a clock that is further ahead than this do not count for the grace time.
const CLOCKS_MAY_DIFFER: SignedDuration = SignedDuration::from_hours(1);

/// How a prune works.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// How long an object stays that no manifest names, from the first prune that finds it.
    pub grace: Duration,
    /// The time, for the grace.
    pub now: Timestamp,
    /// How long a lock must not change before its backup is taken for dead: several heartbeats.
    pub silence: Duration,
    /// Says what would be done, and changes nothing.
    pub dry_run: bool,
}

impl PruneOptions {
    /// Several heartbeats, and the time that the store's client takes for its retries.
    pub const SILENCE: Duration = Duration::from_mins(15);
    /// Time for a person to bring back a manifest that was deleted by mistake.
    pub const GRACE: Duration = Duration::from_hours(24);
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Chunks and packs in the store.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that some manifest names.
    pub referenced: u64,
    /// Objects that no manifest names, condemned by this prune.
    pub condemned: u64,
    /// Objects that no manifest names yet, of backups that run.
    pub unfinished: u64,
    /// Objects whose grace time is not over.
    pub in_grace: u64,
    /// Objects that a backup may need that began before they were condemned.
    pub held: u64,
    /// Objects that the store keeps from deletion (object lock). They stay condemned.
    pub locked: u64,
    /// Objects that were deleted.
    pub deleted: u64,
    /// Bytes of them.
    pub deleted_bytes: u64,
    /// Snapshots of backups that run.
    pub running: Vec<String>,
    /// Snapshots of backups that were taken for dead: they cannot be finished any more.
    pub given_up: Vec<String>,
}

/// What a list says of its objects; the later, the more may be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sentence {
    /// By a clock that is ahead.
    Future,
    /// The grace time is not over.
    InGrace,
    /// A backup runs that has not seen the list.
    Held,
    /// Whoever relies on an object of it has a manifest.
    Free,
}

impl Repository {
    /// Deletes chunks and packs that no manifest names, after the grace time.
    pub async fn prune(&self, options: &PruneOptions) -> Result<PruneReport, RepositoryError> {
        let mut prune = Prune {
            repository: self,
            options,
            report: PruneReport::default(),
        };
        // The lists before the objects: a list whose objects are all gone is not needed any more.
        let mut lists = condemned::read_all(&*self.store).await?;
        let objects = prune.list_objects().await?;
        if !options.dry_run {
            prune.remove_empty_lists(&mut lists, &objects).await?;
        }
        let silence = (!options.dry_run).then_some(options.silence);
        let active = prune.active_writers(silence).await?;
        let referenced = references::referenced(&*self.store).await?;
        let fresh = prune.judge(&objects, &lists, &active, &referenced).await?;
        let Some(list) = prune.condemn(fresh).await? else {
            return Ok(prune.report);
        };
        if options.grace.is_zero() {
            prune.finish_at_once(&objects, list).await?;
        }
        Ok(prune.report)
    }
}

struct Prune<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    report: PruneReport,
}

impl Prune<'_> {
    async fn list_objects(&mut self) -> Result<Vec<ObjectInfo>, RepositoryError> {
        let mut objects = self.repository.store.list(layout::CHUNKS).await?;
        objects.extend(self.repository.store.list(layout::PACKS).await?);
        self.report.objects = objects.len() as u64;
        self.report.bytes = objects.iter().map(|object| object.size).sum();
        Ok(objects)
    }

    async fn remove_empty_lists(
        &self,
        lists: &mut Vec<Condemned>,
        objects: &[ObjectInfo],
    ) -> Result<(), RepositoryError> {
        let there: HashSet<KeyHash> = objects.iter().map(|object| KeyHash::of(&object.key)).collect();
        let mut empty = Vec::new();
        lists.retain(|list| {
            let in_use = list.objects.iter().any(|key| there.contains(&KeyHash::of(key)));
            if !in_use {
                empty.push(layout::condemned(&list.id));
            }
            in_use
        });
        Ok(self.repository.store.delete(&empty).await?)
    }

    async fn active_writers(&mut self, silence: Option<Duration>) -> Result<Vec<Lock>, RepositoryError> {
        let Watched { active, given_up } = watch::writers(&*self.repository.store, silence).await?;
        self.report.running = active.iter().map(|lock| lock.snapshot.clone()).collect();
        self.report.given_up.extend(given_up);
        Ok(active)
    }

    /// Deletes what may go. Returns what nobody has condemned yet. `referenced` must be younger than `active`, and
    /// `active` younger than `lists`.
    async fn judge(
        &mut self,
        objects: &[ObjectInfo],
        lists: &[Condemned],
        active: &[Lock],
        referenced: &HashSet<KeyHash>,
    ) -> Result<Vec<String>, RepositoryError> {
        let sentences = self.sentences(lists, active);
        let running: HashSet<&str> = active.iter().map(|lock| lock.writer.as_str()).collect();
        let (mut free, mut fresh) = (Vec::new(), Vec::new());
        for object in objects {
            let hash = KeyHash::of(&object.key);
            if referenced.contains(&hash) {
                self.report.referenced += 1;
                continue;
            }
            match sentences.get(&hash) {
                Some(Sentence::Free) => free.push(object),
                Some(Sentence::Held) => self.report.held += 1,
                Some(Sentence::InGrace) => self.report.in_grace += 1,
                // What a running backup stores would be condemned for nothing: soon its manifest names it.
                Some(Sentence::Future) | None
                    if layout::writer_of(&object.key).is_some_and(|writer| running.contains(writer)) =>
                {
                    self.report.unfinished += 1;
                }
                Some(Sentence::Future) | None => fresh.push(object.key.clone()),
            }
        }
        self.delete(&free).await?;
        Ok(fresh)
    }

    fn sentences(&self, lists: &[Condemned], active: &[Lock]) -> HashMap<KeyHash, Sentence> {
        let mut sentences = HashMap::new();
        for list in lists {
            let sentence = self.sentence(list, active);
            for key in &list.objects {
                let of_object = sentences.entry(KeyHash::of(key)).or_insert(sentence);
                *of_object = sentence.max(*of_object);
            }
        }
        sentences
    }

    fn sentence(&self, list: &Condemned, active: &[Lock]) -> Sentence {
        let age = self.options.now.duration_since(list.marked);
        let seen = |lock: &Lock| lock.seen.as_ref().is_some_and(|seen| seen.contains(&list.id));
        if age < -CLOCKS_MAY_DIFFER {
            Sentence::Future
        } else if !self.options.grace.is_zero()
            && age < SignedDuration::try_from(self.options.grace).unwrap_or(SignedDuration::MAX)
        {
            Sentence::InGrace
        } else if active.iter().all(seen) {
            Sentence::Free
        } else {
            Sentence::Held
        }
    }

    /// Deletes objects. One that is locked stays for a later prune.
    async fn delete(&mut self, objects: &[&ObjectInfo]) -> Result<(), RepositoryError> {
        for batch in objects.chunks(BATCH) {
            let mut locked = HashSet::new();
            if !self.options.dry_run {
                let keys: Vec<String> = batch.iter().map(|object| object.key.clone()).collect();
                match self.repository.store.delete(&keys).await {
                    Err(StoreError::ObjectsLocked { objects, .. }) => {
                        locked.extend(objects.into_iter().map(|object| object.key));
                    }
                    deleted => deleted?,
                }
            }
            let deleted = batch.iter().filter(|object| !locked.contains(&object.key));
            self.report.deleted += deleted.clone().count() as u64;
            self.report.deleted_bytes += deleted.map(|object| object.size).sum::<u64>();
            self.report.locked += locked.len() as u64;
        }
        Ok(())
    }

    /// Writes the list of what nobody had condemned.
    async fn condemn(&mut self, objects: Vec<String>) -> Result<Option<Condemned>, RepositoryError> {
        self.report.condemned = objects.len() as u64;
        if objects.is_empty() || self.options.dry_run {
            return Ok(None);
        }
        let list = Condemned {
            id: Uuid::new_v4().simple().to_string(),
            marked: self.options.now,
            objects,
        };
        list.write(&*self.repository.store).await?;
        Ok(Some(list))
    }

    /// Without a grace time one call does both halves. Everything is looked at anew, as it is younger than the list.
    async fn finish_at_once(&mut self, objects: &[ObjectInfo], list: Condemned) -> Result<(), RepositoryError> {
        let active = self.active_writers(None).await?;
        let referenced = references::referenced(&*self.repository.store).await?;
        let condemned = condemned::hashes(std::slice::from_ref(&list));
        let objects: Vec<ObjectInfo> = objects
            .iter()
            .filter(|object| condemned.contains(&KeyHash::of(&object.key)))
            .cloned()
            .collect();
        self.judge(&objects, &[list], &active, &referenced).await?;
        Ok(())
    }
}
