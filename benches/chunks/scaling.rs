//! A backup by two workers beside one by one worker, where one table holds nearly everything.

use serde_json::json;

use super::backups::{seconds, show};
use crate::figures::median;
use crate::measured::{Run, cores};
use crate::parts::Database;
use crate::site::{BUCKET, Site};

/// Runs of each that count.
const ROUNDS: usize = 3;

/// The time that two workers take of that of one.
pub fn measure(site: &Site<'_>, database: &Database<'_>) -> f64 {
    let share = database.psql(
        "SELECT round(100.0 * pg_table_size('mixed') / sum(pg_table_size(oid)))
         FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    );
    println!("\none table holds {share}% of the rows' bytes");
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (parallelism, runs) in [(1, &mut one), (2, &mut two)] {
            site.empty(BUCKET);
            let spec = json!({"dataFormat": "Chunks", "parallelism": parallelism});
            let run = site.back_up(&database.name, &spec);
            show(&format!("backup, parallelism {parallelism}"), round, &run, None);
            if round > 0 {
                runs.push(run);
            }
        }
    }
    let ratio = seconds(&two) / seconds(&one);
    // No number of workers is faster than all cores at work without a pause.
    let least = |run: &Run| run.busy().as_secs_f64() / cores() / run.seconds();
    let least = median(one.iter().map(least).collect());
    println!("two workers take {ratio:.3} of the time of one; its processor time spread over all cores is {least:.3}");
    ratio
}
