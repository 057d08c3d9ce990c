//! Restores beside those of `pg_restore`.

use serde_json::json;

use super::backups::{seconds, show};
use super::{Case, JOBS, Worst};
use crate::measured::Run;
use crate::parts::NEWEST_CLIENT;
use crate::site::STOCK_BUCKET;

/// As people do it: the archive is fetched, then restored.
const DEFAULT: &str = "rclone copyto --quiet store:stock/default.dump $folder/default.dump && \
                       pg_restore --dbname restored $folder/default.dump";

/// As fast as it goes with the stock tools; `JOBS` is 2 or 4.
const BEST: &str = "rclone copy --quiet store:stock/best $folder/fetched && \
                    PGOPTIONS='-c maintenance_work_mem=512MB' pg_restore --jobs=JOBS --dbname restored $folder/fetched";

pub fn measure(case: &Case<'_>, worst: &mut Worst) {
    put_archives(case);
    let (mut ours, mut default, mut two, mut four) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let best = |jobs: &str| BEST.replace("JOBS", jobs);
    for round in 1..=case.rounds {
        let name = "restore, pg_restore -j2";
        two.push(restored(case, name, round, |case| stock(case, &best("2"))));
        ours.push(restored(case, "restore, pgrescue", round, |case| {
            case.site.restore("restored", &json!({"jobs": JOBS}))
        }));
        let name = "restore, pg_restore -j4";
        four.push(restored(case, name, round, |case| stock(case, &best("4"))));
        if default.len() < 2 {
            default.push(restored(case, "restore, pg_restore", round, |case| {
                stock(case, DEFAULT)
            }));
        }
    }
    let peak = ours.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    let (our, default, best) = (seconds(&ours), seconds(&default), seconds(&two).min(seconds(&four)));
    println!(
        "restore: {our:.2} s; of pg_restore {:.3}, of the best stock run {:.3}; peak {peak:.0} MiB",
        our / default,
        our / best
    );
    worst.note("restore.vs_default", our / default);
    worst.note("restore.vs_best", our / best);
}

/// The archives that the stock tools restore. One of a newer `pg_dump` holds settings that an older server refuses.
fn put_archives(case: &Case<'_>) {
    let compress = if case.major() == NEWEST_CLIENT {
        "--compress=zstd:1"
    } else {
        "--compress=1"
    };
    case.site.empty(STOCK_BUCKET);
    case.site.shell(
        case.major(),
        &case.database.name,
        &format!(
            "rm -rf $folder/best; pg_dump -Fd -j2 {compress} -f $folder/best && \
             rclone copy --quiet $folder/best store:stock/best && \
             pg_dump -Fc | rclone rcat --quiet store:stock/default.dump"
        ),
    );
}

fn stock(case: &Case<'_>, script: &str) -> Run {
    case.site.server.psql("postgres", "CREATE DATABASE restored");
    case.site.shell(case.major(), &case.database.name, script)
}

/// One restore into a database that is removed again.
fn restored(case: &Case<'_>, name: &str, round: usize, restore: impl Fn(&Case<'_>) -> Run) -> Run {
    let server = case.site.server;
    for leftover in ["fetched", "default.dump"] {
        let path = case.site.folder.path().join(leftover);
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_file(&path);
    }
    // What earlier runs left to be written is none of this one's business.
    server.psql("postgres", "CHECKPOINT");
    let run = restore(case);
    show(name, round, &run, None);
    let state = "SELECT (SELECT count(*) FROM mixed), (SELECT count(*) FROM pgbench_accounts), \
                 (SELECT count(*) FROM pg_index WHERE indrelid::regclass::text ~ 'mixed|pgbench')";
    let expected = case.database.psql(state);
    assert_eq!(server.psql("restored", state), expected, "{name}");
    server.psql("postgres", "DROP DATABASE restored");
    run
}
