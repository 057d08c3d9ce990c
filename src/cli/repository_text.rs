//! Answers about a repository, for people.

use std::fmt::Write as _;

use crate::agent::export::ExportReport;
use crate::store::repository::{
    CheckReport, Damage, Hurt, PruneReport, RepositoryStatistics, SnapshotSummary, WriterSummary,
};

/// What was exported, and how it is restored.
pub fn export(report: &ExportReport) -> String {
    let ExportReport {
        folder,
        snapshot,
        database,
        tables,
        rows,
        large_objects,
        converted_tables,
        bytes,
        pg_restore,
    } = report;
    let converted = match converted_tables {
        0 => String::new(),
        number => format!("; the rows of {number} tables were binary and are text now"),
    };
    format!(
        "{database:?} of {snapshot}: {tables} tables, {rows} rows, {large_objects} large objects, {}{converted}\n\
         {} is for pg_restore of PostgreSQL {pg_restore}\n",
        size(*bytes),
        folder.display()
    )
}

/// One line a backup.
pub fn snapshots(summaries: &[SnapshotSummary]) -> String {
    let mut lines = vec![["SNAPSHOT", "BACKUP", "COMPLETED", "FORMAT", "DATABASES", "ROWS", "SIZE"].map(str::to_owned)];
    for summary in summaries {
        let SnapshotSummary {
            snapshot,
            backup,
            completed,
            data_format,
            recipients,
            databases,
            rows,
            bytes,
            problem,
        } = summary;
        let line = match problem {
            Some(problem) => {
                let unreadable = format!("the manifest cannot be read: {problem}");
                [
                    snapshot.clone(),
                    unreadable,
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                ]
            }
            None => [
                snapshot.clone(),
                backup.clone(),
                completed.map_or(String::new(), |time| time.to_string()),
                data_format.map_or(String::new(), |format| {
                    let encrypted = if recipients.is_empty() { "" } else { "+age" };
                    format!("{format:?}{encrypted}")
                }),
                databases.join(","),
                rows.to_string(),
                size(*bytes),
            ],
        };
        lines.push(line);
    }
    table(&lines)
}

fn table<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    // A line with an explanation does not spread the others.
    for line in lines.iter().filter(|line| !line[COLUMNS - 1].is_empty()) {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut cells = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(cells, "{cell:width$}  ");
        }
        text.push_str(cells.trim_end());
        text.push('\n');
    }
    text
}

/// What the chunks take.
pub fn statistics(statistics: &RepositoryStatistics) -> String {
    let RepositoryStatistics {
        id,
        format_version,
        snapshots,
        row_bytes,
        chunks,
        chunk_bytes,
        stored_bytes,
        objects,
        object_bytes,
        unreferenced_bytes,
        unused_pack_bytes,
        condemned_bytes,
        writers,
    } = statistics;
    let mut text = format!(
        "repository {id}, format {format_version}\n\
         {snapshots} backups with chunks: {} of rows\n\
         {chunks} different chunks: {} of rows, {} in the store\n\
         {objects} objects: {}; {} that no backup needs, {} of them condemned; {} in packs that are needed for other chunks\n",
        size(*row_bytes),
        size(*chunk_bytes),
        size(*stored_bytes),
        size(*object_bytes),
        size(*unreferenced_bytes),
        size(*condemned_bytes),
        size(*unused_pack_bytes),
    );
    for WriterSummary {
        run,
        snapshot,
        started,
        renewed,
    } in writers
    {
        let _ = writeln!(
            text,
            "writing: snapshot {snapshot} of run {run}, since {started}, last sign of life {renewed}"
        );
    }
    text
}

/// What is whole and what is not.
pub fn check(report: &CheckReport) -> String {
    let CheckReport {
        snapshots,
        objects,
        chunks,
        bytes_read,
        damages,
    } = report;
    let mut text = String::new();
    for Damage {
        object,
        chunk,
        problem,
        hurts,
    } in damages
    {
        let _ = match chunk {
            Some(chunk) => writeln!(text, "damaged: chunk {chunk} in {object}: {problem}"),
            None => writeln!(text, "damaged: {object}: {problem}"),
        };
        for Hurt {
            snapshot,
            backup,
            tables,
        } in hurts
        {
            let _ = match tables.as_slice() {
                [] => writeln!(text, "  hurts snapshot {snapshot} {backup}"),
                tables => writeln!(text, "  hurts snapshot {snapshot} {backup}: {}", tables.join(", ")),
            };
        }
    }
    let verdict = match damages.len() {
        0 => "all whole".to_owned(),
        1 => "1 is damaged".to_owned(),
        count => format!("{count} are damaged"),
    };
    let _ = writeln!(
        text,
        "{snapshots} backups, {objects} objects and {chunks} chunks checked, {} read: {verdict}",
        size(*bytes_read)
    );
    text
}

/// What went and what stays.
pub fn prune(report: &PruneReport, dry_run: bool) -> String {
    let PruneReport {
        objects,
        bytes,
        referenced,
        condemned,
        unfinished,
        in_grace,
        held,
        locked,
        deleted,
        deleted_bytes,
        running,
        given_up,
    } = report;
    let (deleted_word, condemned_word) = if dry_run {
        ("would be deleted", "would be condemned")
    } else {
        ("deleted", "condemned")
    };
    let mut text = format!(
        "{objects} objects, {}; {referenced} are needed\n\
         {deleted} {deleted_word}, {}; {condemned} newly {condemned_word}\n",
        size(*bytes),
        size(*deleted_bytes)
    );
    for (count, why) in [
        (in_grace, "wait for the end of their grace time"),
        (held, "wait for backups that began before they were condemned"),
        (unfinished, "belong to backups that run"),
        (locked, "are kept by object lock, and stay condemned"),
    ] {
        if *count > 0 {
            let _ = writeln!(text, "{count} {why}");
        }
    }
    for snapshot in running {
        let _ = writeln!(text, "running: snapshot {snapshot}");
    }
    for snapshot in given_up {
        let _ = writeln!(text, "given up: snapshot {snapshot}, whose backup gave no sign of life");
    }
    text
}

/// In units of 1024, as the docs of memory and of parts have them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, None);
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        unit = Some(next);
    }
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => format!("{whole}.{} {unit}", rest * 10 / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16383.9 PiB"]);
    }

    #[test]
    fn damage_is_named_with_the_tables_that_it_hurts() {
        let hurt = |tables: &[&str]| Hurt {
            snapshot: "20260102T030405Z-0123456789".into(),
            backup: "shop/orders".into(),
            tables: tables.iter().map(ToString::to_string).collect(),
        };
        let report = CheckReport {
            snapshots: 2,
            objects: 6,
            chunks: 40,
            bytes_read: 3 << 20,
            damages: vec![
                Damage {
                    object: "chunks/ab/abcd".into(),
                    chunk: Some("abcd".into()),
                    problem: "the object is missing".into(),
                    hurts: vec![hurt(&["shop.public.orders", "shop.public.items"])],
                },
                Damage {
                    object: "snapshots/x/shop/archive.dump".into(),
                    chunk: None,
                    problem: "it has 1 bytes instead of 2".into(),
                    hurts: vec![hurt(&[])],
                },
            ],
        };
        insta::assert_snapshot!(check(&report));
    }

    #[test]
    fn a_prune_says_what_waits_and_for_what() {
        let report = PruneReport {
            objects: 100,
            bytes: 1 << 30,
            referenced: 80,
            condemned: 5,
            in_grace: 4,
            held: 3,
            unfinished: 2,
            locked: 1,
            deleted: 6,
            deleted_bytes: 6 << 20,
            running: vec!["one".into()],
            given_up: vec!["other".into()],
        };
        insta::assert_snapshot!([prune(&report, false), prune(&report, true)].join("\n"));
    }
}
