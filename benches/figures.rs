//! What is measured, against which goal, and how it is written down.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

/// On which side of the goal the value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost,
    AtLeast,
}

/// One measured value.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub bound: Bound,
    pub goal: f64,
    pub pass: bool,
}

impl Figure {
    pub fn at_most(name: &'static str, value: f64, unit: &'static str, goal: f64) -> Self {
        Self::new(name, value, unit, Bound::AtMost, goal)
    }

    pub fn at_least(name: &'static str, value: f64, unit: &'static str, goal: f64) -> Self {
        Self::new(name, value, unit, Bound::AtLeast, goal)
    }

    fn new(name: &'static str, value: f64, unit: &'static str, bound: Bound, goal: f64) -> Self {
        let value = (value * 1000.0).round() / 1000.0;
        let pass = match bound {
            Bound::AtMost => value <= goal,
            Bound::AtLeast => value >= goal,
        };
        Self {
            name,
            value,
            unit,
            bound,
            goal,
            pass,
        }
    }
}

pub fn print(figures: &[Figure]) {
    println!("\n{:<32} {:>10} {:<6} {:>19}  met", "figure", "value", "unit", "goal");
    for Figure {
        name,
        value,
        unit,
        bound,
        goal,
        pass,
    } in figures
    {
        let met = if *pass { "yes" } else { "NO" };
        let bound = match bound {
            Bound::AtMost => "at most",
            Bound::AtLeast => "at least",
        };
        println!("{name:<32} {value:>10.3} {unit:<6} {bound:>9} {goal:>9.3}  {met}");
    }
}

/// Writes one JSON object a line to `$BENCH_OUT`, by default in the build folder.
pub fn write(figures: &[Figure]) -> std::io::Result<PathBuf> {
    let path = std::env::var_os("BENCH_OUT").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench.jsonl"),
        PathBuf::from,
    );
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::File::create(&path)?;
    for figure in figures {
        writeln!(file, "{}", serde_json::to_string(figure)?)?;
    }
    Ok(path)
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}
