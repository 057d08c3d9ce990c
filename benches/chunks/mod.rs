//! Group `chunks`: backups with rows as chunks, and restores of them, beside the stock tools.
//!
//! `BENCH_MAJORS` and `BENCH_GIGABYTES` choose servers and sizes for a shorter run, such as `18` and `2`, and
//! `BENCH_PARTS` some of `backup`, `restore`, `link`, `changes` and `scaling`. A figure is the worst of all servers and
//! sizes.

mod backups;
mod link;
mod restores;
mod scaling;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::database::{self, Contents};
use crate::figures::Figure;
use crate::machine;
use crate::parts::{self, Database, NEWEST_CLIENT, S3Server};
use crate::site::Site;

/// `parallelism` of the backups.
const PARALLELISM: u8 = 4;

/// `jobs` of the restores, of which the server does nearly all: one for each of two cores.
const JOBS: u8 = 2;

/// Sizes up to this are measured more often.
const SMALL_GIGABYTES: u32 = 2;

/// What `BENCH_PARTS` may name.
const PARTS: [&str; 5] = ["backup", "restore", "link", "changes", "scaling"];

/// The worst values so far.
#[derive(Default)]
struct Worst(BTreeMap<&'static str, f64>);

impl Worst {
    fn note(&mut self, name: &'static str, value: f64) {
        let worst = self.0.entry(name).or_insert(value);
        *worst = worst.max(value);
    }

    fn figure(&self, name: &'static str, unit: &'static str, goal: f64) -> Option<Figure> {
        let value = *self.0.get(name)?;
        Some(Figure::at_most(name, value, unit, goal))
    }
}

/// One server with a database of one size.
struct Case<'a> {
    site: &'a Site<'a>,
    database: &'a Database<'a>,
    /// Runs of each kind that count.
    rounds: usize,
}

impl Case<'_> {
    fn major(&self) -> u32 {
        self.site.server.major
    }
}

pub fn measure() -> Vec<Figure> {
    let majors = numbers("BENCH_MAJORS", &[15, 18]);
    let sizes = numbers("BENCH_GIGABYTES", &[2, 10]);
    machine::row("store", &format!("versitygw {}, loopback", parts::version("versitygw")));
    let mut worst = Worst::default();
    let mut figures = Vec::new();
    for &major in &majors {
        let server = database::server(major);
        let store = S3Server::start();
        let site = Site::new(&server, &store);
        println!();
        machine::row("server", &server.psql("postgres", "SELECT version()"));
        machine::row("clients", &clients(major));
        machine::row("upload", &site.rclone_version());
        let mut peaks = Vec::new();
        for &gigabytes in &sizes {
            let begin = Instant::now();
            let (database, size) = database::fill(&server, Contents::gigabytes(gigabytes));
            let seconds = begin.elapsed().as_secs_f64();
            println!(
                "\nPostgreSQL {major}, {} MB (filled in {seconds:.0} s)",
                size / 1_000_000
            );
            let case = Case {
                site: &site,
                database: &database,
                rounds: if gigabytes > SMALL_GIGABYTES { 1 } else { 3 },
            };
            if is_wanted("backup") {
                peaks.push(backups::measure(&case, &mut worst));
            }
            if is_wanted("restore") {
                if !is_wanted("backup") {
                    backups::make(&case);
                }
                restores::measure(&case, &mut worst);
            }
            // One server and one size are enough for what the link bounds.
            if is_wanted("link") && (Some(&major), Some(&gigabytes)) == (majors.last(), sizes.last()) {
                figures.push(link::measure(&database));
            }
            if is_wanted("changes") {
                backups::measure_changes(&case, &mut worst);
            }
        }
        if let (Some(smallest), Some(largest)) = (peaks.first(), peaks.last())
            && peaks.len() > 1
        {
            worst.note("agent.peak_growth", largest / smallest);
        }
        if is_wanted("scaling") && Some(&major) == majors.last() {
            let (database, _) = database::fill(&server, Contents::one_large_table(SMALL_GIGABYTES));
            worst.note("backup.scaling", scaling::measure(&site, &database));
        }
    }
    let bounded = [
        ("backup.vs_default", "ratio", 0.30),
        ("backup.vs_best", "ratio", 1.0),
        ("restore.vs_best", "ratio", 0.85),
        ("restore.vs_default", "ratio", 0.60),
        ("backup.repeat_bytes", "ratio", 0.01),
        ("backup.touched_bytes", "ratio", 0.03),
        ("agent.peak_mib", "MiB", 128.0),
        ("agent.peak_growth", "ratio", 1.1),
        ("backup.scaling", "ratio", 0.6),
    ];
    figures.extend(
        bounded
            .into_iter()
            .filter_map(|(name, unit, goal)| worst.figure(name, unit, goal)),
    );
    figures
}

fn is_wanted(part: &str) -> bool {
    std::env::var("BENCH_PARTS").map_or(true, |parts| {
        let unknown = parts.split_whitespace().find(|it| !PARTS.contains(it));
        assert_eq!(unknown, None, "BENCH_PARTS: the parts are {}", PARTS.join(", "));
        parts.split_whitespace().any(|it| it == part)
    })
}

fn clients(major: u32) -> String {
    let version = |major| machine::version(&parts::client_folder(major).join("pg_dump"), "--version");
    if major == NEWEST_CLIENT {
        version(major)
    } else {
        format!("{}; {}", version(major), version(NEWEST_CLIENT))
    }
}

fn numbers(variable: &str, standard: &[u32]) -> Vec<u32> {
    let Ok(text) = std::env::var(variable) else {
        return standard.to_vec();
    };
    let numbers = text.split_whitespace().map(str::parse);
    let numbers: Result<Vec<u32>, _> = numbers.collect();
    numbers.unwrap_or_else(|error| panic!("{variable}={text:?}: {error}"))
}
