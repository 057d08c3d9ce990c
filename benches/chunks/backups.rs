//! Backups beside those of `pg_dump`, and the bytes that later backups send.

use serde_json::{Value, json};

use super::{Case, PARALLELISM, Worst};
use crate::figures::median;
use crate::measured::Run;
use crate::parts::NEWEST_CLIENT;
use crate::site::{BUCKET, STOCK_BUCKET};

/// As people do it.
const DEFAULT: &str = "pg_dump -Fc | rclone rcat --quiet store:stock/default.dump";

/// As fast as it goes with the stock tools.
const BEST: &str = "rm -rf $folder/best; pg_dump -Fd -j2 --compress=zstd:1 -f $folder/best && \
                    rclone copy --quiet $folder/best store:stock/best";

/// The least that the rows take for each byte of the database: less means that something was left out.
const LEAST_SHARE: f64 = 0.05;

fn spec() -> Value {
    json!({"dataFormat": "Chunks", "parallelism": PARALLELISM})
}

/// Leaves a backup, and the archive of the default, in the store. Returns the peak of memory.
pub fn measure(case: &Case<'_>, worst: &mut Worst) -> f64 {
    let (mut ours, mut default, mut best) = (Vec::new(), Vec::new(), Vec::new());
    // One round more warms everything up. The default takes its time: it is run no more often than is needed.
    for round in 0..=case.rounds {
        case.site.empty(STOCK_BUCKET);
        let run = case.site.shell(NEWEST_CLIENT, &case.database.name, BEST);
        show("backup, best stock run", round, &run, Some(stored(case, STOCK_BUCKET)));
        best.push(run);
        case.site.empty(BUCKET);
        let run = case.site.back_up(&case.database.name, &spec());
        show("backup, pgrescue", round, &run, Some(stored(case, BUCKET)));
        ours.push(run);
        case.site.empty(STOCK_BUCKET);
        if round > 0 && default.len() < 2 {
            let run = case.site.shell(case.major(), &case.database.name, DEFAULT);
            show("backup, pg_dump -Fc", round, &run, Some(stored(case, STOCK_BUCKET)));
            default.push(run);
        }
    }
    let (our, default, best) = (seconds(&ours[1..]), seconds(&default), seconds(&best[1..]));
    let peak = ours.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    println!(
        "backup: {our:.2} s; of pg_dump -Fc {:.3}, of the best stock run {:.3}; peak {peak:.0} MiB",
        our / default,
        our / best
    );
    worst.note("backup.vs_default", our / default);
    worst.note("backup.vs_best", our / best);
    worst.note("agent.peak_mib", peak);
    peak
}

/// Leaves a backup in the store, and nothing else.
pub fn make(case: &Case<'_>) {
    case.site.empty(BUCKET);
    case.site.back_up(&case.database.name, &spec());
}

/// What another backup sends where nothing changed, and where blocks were touched.
pub fn measure_changes(case: &Case<'_>, worst: &mut Worst) {
    make(case);
    let first = stored(case, BUCKET);
    let again = || {
        let before = stored(case, BUCKET);
        let run = case.site.back_up(&case.database.name, &spec());
        let sent = stored(case, BUCKET) - before;
        (run, sent as f64 / first as f64)
    };
    let (run, repeat) = again();
    show("backup, nothing changed", 1, &run, None);
    // A row that is updated moves to wherever there is room, and touches a block more; a deleted one touches its own.
    touch(
        case,
        DELETE,
        "generate_series(blocks / 3, blocks / 3 + blocks / 100 - 1)",
    );
    let (_, in_one_stretch) = again();
    touch(
        case,
        UPDATE,
        "generate_series(blocks * 2 / 3, blocks * 2 / 3 + blocks / 100 - 1)",
    );
    let (_, moved) = again();
    touch(case, UPDATE, "generate_series(50, blocks - 1, 100)");
    let (_, at_random) = again();
    println!(
        "bytes sent, of the first backup's {} MB: nothing changed {repeat:.4}; a row of each of 1% of the blocks of \
         mixed deleted in one stretch {in_one_stretch:.4}, updated in one stretch {moved:.4}, updated all over the \
         table {at_random:.4}",
        first / 1_000_000
    );
    worst.note("backup.repeat_bytes", repeat);
    worst.note("backup.touched_bytes", in_one_stretch);
}

const DELETE: &str = "DELETE FROM mixed";

const UPDATE: &str = "UPDATE mixed SET price = price + 1";

/// Changes one row in each of these blocks of the table with most of the bytes.
fn touch(case: &Case<'_>, change: &str, blocks: &str) {
    let touched = case.database.psql(&format!(
        "WITH touched AS ({change} WHERE ctid = ANY (ARRAY(
             SELECT format('(%s,1)', block)::tid
             FROM (SELECT pg_relation_size('mixed')::int8 / 8192 AS blocks) AS size, {blocks} AS block)) RETURNING 1)
         SELECT count(*) FROM touched"
    ));
    assert!(touched.parse::<u64>().is_ok_and(|rows| rows > 100), "{touched} rows");
}

fn stored(case: &Case<'_>, bucket: &str) -> u64 {
    let bytes = case.site.stored_bytes(bucket);
    let size = "SELECT pg_database_size(current_database())";
    let size: f64 = case.database.psql(size).parse().expect("a number of bytes");
    assert!(bytes as f64 > size * LEAST_SHARE, "only {bytes} bytes were stored");
    bytes
}

/// Shows one run; round 0 does not count.
pub fn show(name: &str, round: usize, run: &Run, stored: Option<u64>) {
    let stored = stored.map_or(String::new(), |bytes| format!("; stored {} MB", bytes / 1_000_000));
    let note = if round == 0 { " (not counted)" } else { "" };
    println!("{name:<32} {run}{stored}{note}");
}

/// Median of the wall times.
pub fn seconds(runs: &[Run]) -> f64 {
    median(runs.iter().map(Run::seconds).collect())
}
