//! A backup to a store behind a slow and long link.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::PARALLELISM;
use super::backups::show;
use crate::figures::{Figure, median};
use crate::parts::{Database, S3Server};
use crate::site::{BUCKET, Site};

const MEGABITS: f64 = 200.0;
const ROUND_TRIP_SECONDS: f64 = 0.05;

/// Of the two ends; nothing else of this machine has them.
const ADDRESSES: [&str; 2] = ["10.89.77.1", "10.89.77.2"];

/// Runs that count.
const ROUNDS: usize = 2;

/// The link is there as long as its process lives, which ends with its standard input.
struct Link(Child);

impl Link {
    fn with_network_of(pid: u32) -> Self {
        let mut process = Command::new("python3")
            .args(["-c", include_str!("link.py")])
            .arg(pid.to_string())
            .args(ADDRESSES)
            .args([MEGABITS, ROUND_TRIP_SECONDS].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        let read = BufReader::new(output).read_line(&mut line);
        assert!(read.is_ok() && line == "ready\n", "the link could not be made");
        Self(process)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The share of the link that backups use.
pub fn measure(database: &Database<'_>) -> Figure {
    let mut link = None;
    let store = S3Server::start_apart(|pid| {
        link = Some(Link::with_network_of(pid));
        ADDRESSES[1].to_owned()
    });
    let site = Site::new(database.server, &store);
    let mut shares = Vec::new();
    for round in 0..=ROUNDS {
        site.empty(BUCKET);
        let spec = json!({"dataFormat": "Chunks", "parallelism": PARALLELISM});
        let run = site.back_up(&database.name, &spec);
        let bytes = site.stored_bytes(BUCKET);
        let share = bytes as f64 * 8.0 / 1e6 / MEGABITS / run.seconds();
        let name = format!("backup, {MEGABITS} Mbit/s, {:.0} ms", ROUND_TRIP_SECONDS * 1e3);
        show(&name, round, &run, Some(bytes));
        if round > 0 {
            shares.push(share);
        }
    }
    drop(link); // it is there until now
    let share = median(shares);
    println!("share of the link that the stored bytes take: {share:.3}");
    Figure::at_least("backup.link_use", share, "ratio", 0.9)
}
