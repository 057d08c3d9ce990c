//! Figures beside those of the stock tools, taken in one run on one machine.
//!
//! `make bench` runs every group, `make bench BENCH=<group>` one. Figures go to a table on standard output and, one
//! JSON object a line, to the file `$BENCH_OUT`. The exit code says only whether everything ran.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be taken ends the run"
)]
#![allow(clippy::cast_precision_loss, reason = "a figure has three digits")]

mod chunks;
mod custom;
mod database;
mod figures;
mod machine;
mod measured;
#[allow(unused_imports, reason = "the tests use more of the parts")]
#[path = "../tests/integration/parts/mod.rs"]
mod parts;
mod site;

use std::process::ExitCode;

use figures::Figure;

/// Times of servers are to be times of disks too.
const DATA_IN_MEMORY: bool = false;

/// Takes the figures of a group.
type Measure = fn() -> Vec<Figure>;

/// The groups by name.
const GROUPS: [(&str, Measure); 2] = [("custom", custom::measure), ("chunks", chunks::measure)];

fn main() -> ExitCode {
    // cargo adds options of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let names = GROUPS.map(|(name, _)| name);
    if let Some(unknown) = wanted.iter().find(|it| !names.contains(&it.as_str())) {
        eprintln!("there is no group {unknown:?}; the groups are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    machine::print();
    let mut figures = Vec::new();
    for (name, measure) in GROUPS {
        if wanted.is_empty() || wanted.iter().any(|it| it == name) {
            println!("\ngroup {name}");
            figures.extend(measure());
        }
    }
    figures::print(&figures);
    match figures::write(&figures) {
        Ok(path) => {
            println!("\nwritten to {}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the figures could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}
