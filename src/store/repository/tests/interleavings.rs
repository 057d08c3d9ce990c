//! Many random histories of backups, prunes, deletions, crashes, lost answers, sleeping processes and wrong clocks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep, timeout};

use super::simulated_store::Dice;
use super::*;
use crate::store::StoreError;

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// How long a history lasts.
const HISTORY: Duration = Duration::from_hours(16);

/// Different streams that backups are made of.
const STREAMS: u64 = 24;

fn bad_network() -> Network {
    Network {
        latency: Duration::from_secs(20),
        lost_request: 3,
        lost_answer: 3,
        suspended: 4,
        suspension: HOUR * 3,
    }
}

/// Histories: set `PGRESCUE_HISTORIES` for more.
fn histories() -> u64 {
    let count = std::env::var("PGRESCUE_HISTORIES").ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(200)
}

/// Runs histories until every one was taken.
fn run(next: &AtomicU64) -> Seen {
    let histories = histories();
    let mut seen = Seen::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= histories {
            return seen;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        seen.add(runtime.block_on(history(seed)));
    }
}

#[test]
fn no_history_leaves_a_backup_without_its_chunks_and_garbage_goes_in_the_end() {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| run(&next))).collect();
        for thread in threads {
            seen.add(thread.join().unwrap());
        }
    });
    // The histories are worth nothing where what they are about does not happen.
    println!("{seen:?}");
    let Seen {
        committed,
        crashed,
        refused,
        failed,
        known,
        deleted,
        given_up,
        held,
        killed_prunes,
    } = seen;
    for count in [
        committed,
        crashed,
        refused,
        failed,
        known,
        deleted,
        given_up,
        held,
        killed_prunes,
    ] {
        assert!(count > 0, "{seen:?}");
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    committed: u64,
    crashed: u64,
    /// Backups that were taken for dead and found their place taken.
    refused: u64,
    failed: u64,
    /// Chunks that were not stored again.
    known: u64,
    deleted: u64,
    given_up: u64,
    held: u64,
    killed_prunes: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.committed += other.committed;
        self.crashed += other.crashed;
        self.refused += other.refused;
        self.failed += other.failed;
        self.known += other.known;
        self.deleted += other.deleted;
        self.given_up += other.given_up;
        self.held += other.held;
        self.killed_prunes += other.killed_prunes;
    }
}

async fn history(seed: u64) -> Seen {
    let store = SimulatedStore::new(bad_network());
    let end = Instant::now() + HISTORY;
    let mut actors = tokio::task::JoinSet::new();
    for number in 0..3 {
        actors.spawn(backups(store.clone(), number, Dice::new(seed * 100 + number), end));
    }
    for number in 10..12 {
        actors.spawn(prunes(store.clone(), Dice::new(seed * 100 + number), end));
    }
    actors.spawn(retention(store.clone(), Dice::new(seed * 100 + 20), end));
    let mut seen = Seen::default();
    while let Some(actor) = actors.join_next().await {
        seen.add(actor.unwrap());
    }
    assert_eq!(store.violations(), [""; 0], "seed {seed}");
    settle(&store, seed).await;
    seen
}

/// Backups one after another; each is made again until it is done.
async fn backups(store: SimulatedStore, number: u64, mut dice: Dice, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut backup = 0;
    while Instant::now() < end {
        sleep(dice.up_to(HOUR * 2)).await;
        backup += 1;
        let snapshot = format!("{number}-{backup}");
        loop {
            let client = store.suffering_client(dice.roll(u64::MAX));
            let work = attempt(client, snapshot.clone(), Dice::new(dice.roll(u64::MAX)));
            let life = if dice.roll(4) == 0 {
                dice.up_to(HOUR * 2)
            } else {
                HOUR * 1000
            };
            let result = timeout(life, work).await;
            match result {
                Ok(Ok(known)) => {
                    seen.committed += 1;
                    seen.known += known;
                    break;
                }
                Ok(Err(RepositoryError::LockLost { .. })) => seen.refused += 1,
                Ok(Err(_)) => seen.failed += 1,
                Err(_) => seen.crashed += 1,
            }
            // The session of the attempt in its database must have ended before the next one gets its turn.
            sleep(MINUTE * 15 + dice.up_to(HOUR)).await;
            if dice.roll(5) == 0 {
                break; // nobody tries again
            }
        }
    }
    seen
}

/// One attempt, as an agent makes it. Returns how many chunks the repository had.
async fn attempt(store: Arc<dyn Store>, snapshot: String, mut dice: Dice) -> Result<u64, RepositoryError> {
    match references::read(&*store, &snapshot).await? {
        references::Found::Manifest(_) => return Ok(0), // the answer to the commit was lost
        references::Found::Abandoned(_) => store.delete(&[layout::manifest(&snapshot)]).await?,
        references::Found::Nothing => {}
    }
    let mut repository = Repository::open_or_create(Arc::clone(&store)).await?;
    repository.pack_sizes = SIZES;
    let writer = Writer::begin(Arc::new(repository), options(&snapshot)).await?;
    let result = write(&writer, &snapshot, &mut dice).await;
    if result.is_err() {
        // As the agent does: the manifest may be there although the answer was lost.
        store.delete(&[layout::manifest(&snapshot)]).await?;
    }
    writer.end().await?;
    result
}

async fn write(writer: &Writer, snapshot: &str, dice: &mut Dice) -> Result<u64, RepositoryError> {
    let mut names = Vec::new();
    for _ in 0..=dice.roll(12) {
        let number = dice.roll(STREAMS);
        names.push((writer.put(rows(number)).await?.0, number));
        sleep(dice.up_to(MINUTE * 15)).await;
    }
    writer.flush().await?;
    let chunks: Vec<_> = names
        .iter()
        .map(|(name, number)| described(writer, name, &rows(*number)))
        .collect();
    let WriterStatistics { new_chunks, .. } = writer.statistics();
    writer.commit(manifest(snapshot, &chunks)).await?;
    let distinct: std::collections::BTreeSet<_> = names.iter().map(|(name, _)| *name).collect();
    Ok(distinct.len() as u64 - new_chunks)
}

/// Prunes of all kinds, two loops of them at once, some of which are killed.
async fn prunes(store: SimulatedStore, mut dice: Dice, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let begin = Instant::now();
    while Instant::now() < end {
        sleep(dice.up_to(HOUR * 2)).await;
        let skew = SignedDuration::from_hours(i64::try_from(dice.roll(96)).unwrap() - 48);
        let elapsed = SignedDuration::try_from(begin.elapsed()).unwrap();
        let options = PruneOptions {
            grace: [Duration::ZERO, MINUTE, HOUR * 6][usize::try_from(dice.roll(3)).unwrap()],
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000) + elapsed + skew,
            // Too short ones take for dead what lives: backups then fail, but none is hurt.
            silence: [Duration::ZERO, MINUTE, MINUTE * 15][usize::try_from(dice.roll(3)).unwrap()],
            dry_run: dice.roll(10) == 0,
        };
        let life = if dice.roll(3) == 0 {
            dice.up_to(MINUTE * 20)
        } else {
            HOUR * 1000
        };
        let work = async {
            let repository = Repository::open(store.suffering_client(dice.roll(u64::MAX))).await?;
            repository.prune(&options).await
        };
        match timeout(life, work).await {
            Ok(Ok(report)) if !options.dry_run => {
                seen.deleted += report.deleted;
                seen.given_up += report.given_up.len() as u64;
                seen.held += report.held;
            }
            Ok(_) => {}
            Err(_) => seen.killed_prunes += 1,
        }
    }
    seen
}

/// Deletes backups.
async fn retention(store: SimulatedStore, mut dice: Dice, end: Instant) -> Seen {
    let client = store.client(0, Network::calm());
    while Instant::now() < end {
        sleep(dice.up_to(HOUR)).await;
        let snapshots = references::list(&*client).await.unwrap();
        if !snapshots.is_empty() {
            let at = usize::try_from(dice.roll(snapshots.len() as u64)).unwrap();
            // A place that a prune has taken is no backup.
            if let references::Found::Manifest(_) = references::read(&*client, &snapshots[at]).await.unwrap() {
                delete_snapshot(&client, &snapshots[at]).await;
            }
        }
    }
    Seen::default()
}

/// When all is quiet, prunes leave what the manifests name, and every chunk is whole.
async fn settle(store: &SimulatedStore, seed: u64) {
    sleep(HOUR * 4).await; // what is on its way arrives
    let client = store.client(0, Network::calm());
    let repository = match Repository::open(Arc::clone(&client)).await {
        Err(RepositoryError::Missing { .. }) => return, // nobody got so far
        repository => repository.unwrap(),
    };
    let options = PruneOptions {
        now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(2000),
        ..prune_now()
    };
    for _ in 0..3 {
        repository.prune(&options).await.unwrap();
    }
    assert_eq!(store.violations(), [""; 0], "seed {seed}");
    assert_eq!(store.keys(layout::LOCKS), [""; 0], "seed {seed}");
    let mut named = std::collections::BTreeSet::new();
    for snapshot in references::list(&*client).await.unwrap() {
        if let references::Found::Manifest(manifest) = references::read(&*client, &snapshot).await.unwrap() {
            for rows in manifest
                .relations()
                .filter_map(|(_, relation)| relation.chunks.as_ref())
            {
                for chunk in &rows.chunks {
                    repository.read_chunk(chunk).await.unwrap();
                    named.insert(chunk.object.clone());
                }
            }
        }
    }
    let mut there = store.keys(layout::CHUNKS);
    there.extend(store.keys(layout::PACKS));
    // An object stays condemned until it is gone; a list without one goes.
    for list in super::super::condemned::read_all(&*client).await.unwrap() {
        assert!(list.objects.iter().any(|object| named.contains(object)), "seed {seed}");
    }
    assert_eq!(there, named.into_iter().collect::<Vec<_>>(), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn a_violation_is_noticed() {
    let store = SimulatedStore::new(Network::calm());
    let client = store.client(0, Network::calm());
    let repository = repository(&client).await;
    let chunks = back_up(&repository, "a", [1]).await;
    client.delete(&[chunks[0].object.clone()]).await.unwrap();
    assert_eq!(store.violations().len(), 1);
    let error = repository.read_chunk(&chunks[0]).await.unwrap_err();
    assert!(matches!(
        error,
        RepositoryError::Damaged {
            damage: ChunkDamage::Missing,
            ..
        }
    ));
    let exists = store::put_new(&*client, &layout::manifest("a"), Bytes::new()).await;
    assert!(matches!(exists, Err(StoreError::ObjectExists { .. })));
}
