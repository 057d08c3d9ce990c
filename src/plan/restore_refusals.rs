//! The sentences in which a restore is refused, each with the condition that leads to it. Pure.

mod roles;

use super::backup::Sections;
use super::listing::{few, first_and_more};
use super::refusal::Refusal;
use super::restore::check_target_database;
use super::restore_findings::{EmptyDatabase, Findings, Foreign, Snapshot, SubscriptionAction};
use crate::api::reasons;
use crate::api::status::FailureClass;
use crate::postgres::quote::identifier;
pub(super) use roles::of_roles;

/// Oldest server that is supported.
const OLDEST_SERVER: u32 = 12;
/// Names in one sentence; the rest are counted.
const MOST_NAMES: usize = 50;

/// One refusal that says everything. The first gives the reason; a retry helps only where it helps all.
pub(super) fn combined(mut refusals: Vec<Refusal>) -> Refusal {
    if refusals.len() <= 1 {
        return refusals
            .pop()
            .unwrap_or_else(|| Refusal::permanent(reasons::INTERNAL, "The restore was refused without a reason."));
    }
    let messages: Vec<_> = refusals
        .iter()
        .enumerate()
        .map(|(at, refusal)| format!("({}) {}", at + 1, refusal.message))
        .collect();
    let hints: Vec<_> = refusals
        .iter()
        .enumerate()
        .filter_map(|(at, refusal)| refusal.hint.as_ref().map(|hint| format!("({}) {hint}", at + 1)))
        .collect();
    let permanent = refusals.iter().any(|each| each.class == FailureClass::Permanent);
    let first = refusals.swap_remove(0);
    Refusal {
        class: if permanent {
            FailureClass::Permanent
        } else {
            first.class
        },
        message: messages.join(" "),
        hint: (!hints.is_empty()).then(|| hints.join(" ")),
        ..first
    }
}

pub(super) fn not_empty(database: &str, count: u64, first: &[String]) -> Refusal {
    Refusal::permanent(
        reasons::TARGET_NOT_EMPTY,
        format!(
            "The database {database:?} is not empty: it holds {}.",
            first_and_more(first, usize::try_from(count).unwrap_or(usize::MAX))
        ),
    )
    .object(database)
    .hint("Name a database that does not exist or is empty in spec.target.database, or drop this one yourself.")
}

pub(super) fn of_another_run(database: &str, resource: &str, run: &str, working: bool) -> Refusal {
    if working {
        Refusal::temporary(
            reasons::TARGET_BUSY,
            format!("The restore {resource} is at work on the database {database:?}."),
        )
        .object(database)
        .hint("Wait for it to end, or name another database in spec.target.database.")
    } else {
        Refusal::permanent(
            reasons::TARGET_NOT_EMPTY,
            format!("The database {database:?} holds what the restore {resource} (run {run}) left unfinished."),
        )
        .object(database)
        .hint("Nothing in it is complete. Drop it yourself, then create the resource again under a new name.")
    }
}

pub(super) fn closed(database: &str) -> Refusal {
    Refusal::permanent(
        reasons::TARGET_NOT_EMPTY,
        format!("The database {database:?} exists and accepts no connections, so nobody can tell what it holds."),
    )
    .object(database)
    .hint("Name another database in spec.target.database.")
}

pub(super) fn of_snapshot(snapshot: &Snapshot) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if snapshot.sections == Sections::Data {
        let message = format!(
            "The backup of {:?} holds rows without definitions (dataOnly), so no database can be made from it.",
            snapshot.database
        );
        refusals.push(
            Refusal::permanent(reasons::INVALID_SPEC, message)
                .object(&snapshot.database)
                .hint("Restore a backup that was made without dataOnly."),
        );
    }
    refusals
}

pub(super) fn of_server(findings: &Findings) -> Vec<Refusal> {
    let server = &findings.server;
    let mut refusals = Vec::new();
    if server.in_recovery {
        refusals.push(
            Refusal::permanent(
                reasons::TARGET_READ_ONLY,
                "The target server is a standby: nothing can be written there.",
            )
            .hint("Name the primary in spec.target.connection."),
        );
    }
    if server.pooled {
        refusals.push(
            Refusal::permanent(
                reasons::POOLER_IN_FRONT,
                "A transaction pooler stands in front of the target: locks and settings of a session do not last there.",
            )
            .hint("Name the server itself in spec.target.connection, past the pooler."),
        );
    }
    if server.major < OLDEST_SERVER {
        refusals.push(
            Refusal::permanent(
                reasons::SERVER_TOO_OLD,
                format!("The target server is PostgreSQL {}.", server.version),
            )
            .hint(format!("PostgreSQL {OLDEST_SERVER} and later are supported.")),
        );
    } else if server.major < findings.snapshot.server_major {
        refusals.push(
            Refusal::permanent(
                reasons::TARGET_TOO_OLD,
                format!(
                    "The target server is PostgreSQL {}, the backup comes from PostgreSQL {}.",
                    server.version, findings.snapshot.server_major
                ),
            )
            .hint(format!(
                "Restore into PostgreSQL {} or later.",
                findings.snapshot.server_major
            )),
        );
    } else if let Err(refusal) = &server.client {
        refusals.push(refusal.clone());
    }
    refusals
}

/// What stands against creating the database.
pub(super) fn of_creating(findings: &Findings) -> Vec<Refusal> {
    let server = &findings.server;
    let database = &findings.database;
    let mut refusals = Vec::new();
    if let Err(refusal) = check_target_database(database, "the name of the target database") {
        refusals.push(refusal);
    }
    if !server.create_database && !server.superuser {
        refusals.push(
            Refusal::permanent(
                reasons::PERMISSION_DENIED,
                format!(
                    "The role {:?} may not create databases, and the database {database:?} does not exist.",
                    server.role
                ),
            )
            .object(database)
            .hint(format!(
                "As a superuser: ALTER ROLE {} CREATEDB; or create an empty database {database:?} that the role owns.",
                identifier(&server.role)
            )),
        );
    }
    if let Some(why) = &server.locale_refusal {
        let locale = &findings.snapshot.locale;
        refusals.push(
            Refusal::permanent(
                reasons::LOCALE_UNAVAILABLE,
                format!(
                    "The target server cannot make a database with encoding {}, provider {} and locale {:?}: {why}.",
                    locale.encoding,
                    locale.provider,
                    locale.sorts_by()
                ),
            )
            .object(database)
            .hint(
                "Install the locale on the server, or create an empty database with another one and restore into it.",
            ),
        );
    }
    refusals
}

/// What stands against filling the empty database.
pub(super) fn of_filling(findings: &Findings, empty: &EmptyDatabase) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let database = &findings.database;
    if let Err(refusal) = check_target_database(database, "the name of the target database") {
        refusals.push(refusal);
    }
    if !empty.may_create {
        refusals.push(
            Refusal::permanent(
                reasons::PERMISSION_DENIED,
                format!(
                    "The role {:?} may not create schemas in the database {database:?}.",
                    findings.server.role
                ),
            )
            .object(database)
            .hint(format!(
                "As its owner: GRANT CREATE ON DATABASE {} TO {};",
                identifier(database),
                identifier(&findings.server.role)
            )),
        );
    }
    let moved: Vec<_> = findings
        .needs
        .extensions
        .iter()
        .filter_map(|(name, need)| {
            let found = empty.extensions.get(name)?;
            let wanted = need.schema.as_ref().filter(|wanted| *wanted != found)?;
            Some(format!("{name:?} (in {found:?}, the backup has it in {wanted:?})"))
        })
        .collect();
    if !moved.is_empty() {
        refusals.push(
            Refusal::permanent(
                reasons::EXTENSION_MISSING,
                format!(
                    "The database {database:?} has extensions in other schemas than the backup: {}.",
                    moved.join(", ")
                ),
            )
            .object(database)
            .hint("Drop these extensions there; the restore creates them where they belong."),
        );
    }
    refusals
}

pub(super) fn of_extensions(findings: &Findings) -> Vec<Refusal> {
    let missing: Vec<_> = findings
        .needs
        .extensions
        .iter()
        .filter(|(name, _)| !findings.server.extensions.contains_key(*name))
        .map(|(name, need)| match &need.version {
            Some(version) => format!("{name:?} (version {version})"),
            None => format!("{name:?}"),
        })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let refusal = Refusal::permanent(
        reasons::EXTENSION_MISSING,
        format!(
            "The target server does not offer {}: {}.",
            if missing.len() == 1 {
                "an extension of the backup"
            } else {
                "extensions of the backup"
            },
            missing.join(", ")
        ),
    );
    vec![refusal.hint("Install them on the target server (SELECT * FROM pg_available_extensions shows what is there).")]
}

pub(super) fn of_subscriptions(findings: &Findings, foreign: &Foreign) -> Vec<Refusal> {
    let restored: Vec<_> = foreign
        .subscriptions
        .iter()
        .filter(|(_, action)| **action != SubscriptionAction::Dropped)
        .map(|(name, _)| name.clone())
        .collect();
    if restored.is_empty() || findings.server.create_subscription {
        return Vec::new();
    }
    let message = format!(
        "The role {:?} may not create subscriptions, and the backup has {}.",
        findings.server.role,
        quoted_list(&restored)
    );
    vec![
        Refusal::permanent(reasons::PERMISSION_DENIED, message)
            .hint("Leave them out with spec.subscriptions.drop: true, or restore as a superuser."),
    ]
}

/// Names in quotes, the first of many.
pub(super) fn quoted_list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    limited(&quoted)
}

fn limited(texts: &[String]) -> String {
    few(texts, MOST_NAMES)
}
