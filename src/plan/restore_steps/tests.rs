use super::*;
use crate::api::foreign_servers::UnmatchedForeignServers;
use crate::api::reasons;
use crate::api::status::StepState;
use crate::plan::connection::ConnectionPlan;
use crate::plan::restore::SnapshotSource;
use crate::plan::restore_findings::{ExtensionNeed, KnownRole, Needs, Server, Snapshot};
use crate::plan::storage::StoragePlan;
use crate::plan::{Run, RunKind};

fn asked() -> RestorePlan {
    RestorePlan {
        run: Run {
            name: "orders-copy".into(),
            ..Run::sample(RunKind::PgRestore)
        },
        source: SnapshotSource {
            storage: StoragePlan::Folder { path: "/x".into() },
            identity: None,
            snapshot: Some("s".into()),
            backup_namespace: "shop".into(),
            backup_name: "orders".into(),
            manifest_sha256: None,
            database: None,
        },
        target: ConnectionPlan::default(),
        database: None,
        foreign_servers: vec![],
        unmatched_foreign_servers: UnmatchedForeignServers::Fail,
        drop_subscriptions: false,
        subscription_secrets: BTreeMap::new(),
        jobs: 2,
        no_owner: false,
        no_privileges: false,
        role_mapping: BTreeMap::new(),
        globals: Globals::Skip,
        dry_run: false,
        request_hash: "hash".into(),
    }
}

fn locale() -> Locale {
    Locale {
        encoding: "UTF8".into(),
        provider: "libc".into(),
        collate: "C".into(),
        ctype: "C".into(),
        locale: None,
        icu_rules: None,
    }
}

/// A superuser's target on which nothing is missing.
fn found() -> Findings {
    Findings {
        snapshot: Snapshot {
            id: "20260102T030405Z-0123456789".into(),
            manifest_sha256: "00".into(),
            database: "orders".into(),
            server_major: 17,
            sections: Sections::All,
            archive_bytes: 4096,
            chunks: 0,
            chunk_bytes: 0,
            tables: 2,
            rows: 1100,
            locale: locale(),
        },
        server: Server {
            major: 18,
            version: "18.6".into(),
            client: Ok("18.6".into()),
            in_recovery: false,
            pooled: false,
            role: "postgres".into(),
            superuser: true,
            create_database: true,
            create_role: true,
            create_subscription: true,
            roles: [("postgres".into(), true), ("app".into(), true)].into(),
            tablespaces: vec!["pg_default".into()],
            extensions: [("citext".into(), "1.6".into())].into(),
            locale_refusal: None,
        },
        database: "orders_copy".into(),
        state: DatabaseState::Absent,
        needs: Needs {
            owners: [("app".into(), "TABLE public.customer".into())].into(),
            extensions: [(
                "citext".into(),
                ExtensionNeed {
                    schema: Some("public".into()),
                    version: Some("1.6".into()),
                },
            )]
            .into(),
            ..Needs::default()
        },
        foreign: Ok(Foreign::default()),
        warnings: vec![],
    }
}

fn steps_of(plan: &RestorePlan, findings: &Findings) -> Steps {
    match decide(plan, findings).unwrap() {
        Decision::Restore(steps) => *steps,
        Decision::AlreadyApplied { .. } => panic!("nothing was applied"),
    }
}

fn refused(change: impl FnOnce(&mut RestorePlan, &mut Findings)) -> String {
    let (mut plan, mut findings) = (asked(), found());
    change(&mut plan, &mut findings);
    decide(&plan, &findings).unwrap_err().sentence()
}

fn limited_role(findings: &mut Findings) {
    findings.server.role = "restorer".into();
    findings.server.superuser = false;
    findings.server.create_database = false;
    findings.server.create_role = false;
    findings.server.create_subscription = false;
}

fn with_subscription(action: SubscriptionAction) -> Foreign {
    Foreign {
        subscriptions: [("feed".to_owned(), action)].into(),
        ..Foreign::default()
    }
}

#[test]
fn the_sentences_of_a_refused_target_help() {
    insta::assert_snapshot!(
        [
            refused(|_, found| found.snapshot.sections = Sections::Data),
            refused(|_, found| found.server.in_recovery = true),
            refused(|_, found| found.server.pooled = true),
            refused(|_, found| {
                found.server.major = 16;
                found.server.version = "16.15".into();
            }),
            refused(|_, found| {
                found.server.major = 11;
                found.server.version = "11.22".into();
            }),
            refused(|_, found| found.server.client = Err(Refusal::permanent(
                reasons::CLIENT_TOOLS_MISSING,
                "No pg_restore is there."
            ))),
            refused(|_, found| limited_role(found)),
            refused(|_, found| found.server.locale_refusal = Some("it was built without ICU".into())),
            refused(|_, found| found.database = "template1".into()),
            refused(|_, found| found.state = DatabaseState::Closed),
            refused(|_, found| found.state = DatabaseState::NotEmpty {
                count: 7,
                first: vec!["table public.a".into(), "large object 5".into()]
            }),
            refused(|_, found| found.state = DatabaseState::OfAnotherRun {
                resource: "shop/other".into(),
                run: "u2".into(),
                working: true
            }),
            refused(|_, found| found.state = DatabaseState::OfAnotherRun {
                resource: "shop/other".into(),
                run: "u2".into(),
                working: false
            }),
            refused(|_, found| found.state = DatabaseState::Empty(EmptyDatabase::default())),
            refused(|_, found| found.state = DatabaseState::Empty(EmptyDatabase {
                may_create: true,
                extensions: [("citext".into(), "elsewhere".into())].into(),
                ..EmptyDatabase::default()
            })),
        ]
        .join("\n")
    );
}

#[test]
fn the_sentences_of_missing_parts_name_all_of_them() {
    insta::assert_snapshot!(
        [
            refused(|_, found| found.server.extensions.clear()),
            refused(|_, found| {
                found
                    .needs
                    .extensions
                    .insert("postgis".into(), ExtensionNeed::default());
                found.server.extensions.clear();
            }),
            refused(|_, found| {
                found.needs.owners.insert("a \"b\"".into(), "TABLE x.y".into());
                found.needs.roles.insert("reader".into(), "ACL TABLE x.y".into());
            }),
            refused(|plan, found| {
                plan.globals = Globals::Missing;
                found.needs.roles.insert("reader".into(), "ACL TABLE x.y".into());
            }),
            refused(|plan, found| {
                limited_role(found);
                found.server.create_database = true;
                plan.globals = Globals::Missing;
                found.needs.known_roles.insert("reader".into(), KnownRole::default());
            }),
            refused(|plan, found| {
                limited_role(found);
                found.server.create_database = true;
                found.server.create_role = true;
                plan.globals = Globals::Missing;
                found.needs.known_roles.insert(
                    "root".into(),
                    KnownRole {
                        privileged: vec!["SUPERUSER".into()],
                        password: false,
                    },
                );
            }),
            refused(|_, found| {
                limited_role(found);
                found.server.create_database = true;
                found.server.roles.insert("app".into(), false);
            }),
            refused(|_, found| {
                limited_role(found);
                found.server.create_database = true;
                found.foreign = Ok(with_subscription(SubscriptionAction::Kept));
            }),
        ]
        .join("\n")
    );
}

#[test]
fn one_refusal_names_everything_that_stands_against_the_restore() {
    insta::assert_snapshot!(refused(|_, found| {
        found.state = DatabaseState::NotEmpty {
            count: 1,
            first: vec!["table public.a".into()],
        };
        found.server.extensions.clear();
        found.needs.roles.insert("reader".into(), "ACL TABLE x.y".into());
        found.foreign = Err(vec![
            Refusal::permanent(
                reasons::FOREIGN_SERVER_UNMATCHED,
                "No rule selects the foreign server \"b\".",
            )
            .hint("Write one."),
        ]);
    }));
}

#[test]
fn a_target_that_is_busy_alone_is_tried_again() {
    let mut findings = found();
    findings.state = DatabaseState::OfAnotherRun {
        resource: "shop/other".into(),
        run: "u2".into(),
        working: true,
    };
    let refusal = decide(&asked(), &findings).unwrap_err();
    assert_eq!(refusal.class, crate::api::status::FailureClass::Temporary);
    findings.server.extensions.clear();
    let refusal = decide(&asked(), &findings).unwrap_err();
    assert_eq!(refusal.class, crate::api::status::FailureClass::Permanent);
}

#[test]
fn a_request_that_the_target_remembers_is_already_applied_whatever_else_is_wrong() {
    let mut findings = found();
    findings.state = DatabaseState::Applied {
        at: "2026-01-02".into(),
        run: "u1".into(),
    };
    findings.server.extensions.clear();
    let decision = decide(&asked(), &findings).unwrap();
    assert_eq!(
        decision,
        Decision::AlreadyApplied {
            at: "2026-01-02".into()
        }
    );
}

#[test]
fn a_dry_run_and_a_retry_have_the_hash_of_the_run() {
    let first = steps_of(&asked(), &found());
    let mut dry = asked();
    dry.dry_run = true;
    assert_eq!(steps_of(&dry, &found()).hash(), first.hash());
    let mut retry = found();
    retry.state = DatabaseState::UnfinishedCreated;
    assert_eq!(steps_of(&asked(), &retry).hash(), first.hash());
    let mut other = asked();
    other.no_owner = true;
    assert_ne!(steps_of(&other, &found()).hash(), first.hash());
}

#[test]
fn missing_roles_are_made_where_asked_and_only_those() {
    let mut plan = asked();
    let mut findings = found();
    plan.globals = Globals::Missing;
    findings.needs.roles.insert("reader".into(), "ACL".into());
    findings.needs.known_roles = ["app", "reader", "writer"]
        .map(|role| (role.to_owned(), KnownRole::default()))
        .into();
    assert_eq!(steps_of(&plan, &findings).roles, ["reader", "writer"]);
    plan.globals = Globals::Skip;
    findings.needs.roles.clear();
    assert!(steps_of(&plan, &findings).roles.is_empty());
}

#[test]
fn the_steps_read_as_sentences() {
    let mut plan = asked();
    let mut findings = found();
    plan.globals = Globals::Missing;
    findings.needs.known_roles = [("reader".to_owned(), KnownRole::default())].into();
    findings.needs.tablespaces = vec!["fast".into()];
    findings.foreign = Ok(Foreign {
        servers: vec![ForeignServerChange {
            name: "billing_remote".into(),
            wrapper: "postgres_fdw".into(),
            action: ForeignServerAction::Rewritten,
            ..ForeignServerChange::default()
        }],
        ..with_subscription(SubscriptionAction::Dropped)
    });
    let steps = steps_of(&plan, &findings);
    let lines: Vec<_> = steps
        .describe(StepState::Planned)
        .into_iter()
        .map(|step| format!("{}: {}", step.name, step.description.unwrap()))
        .chain(steps.warnings)
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn an_empty_database_that_differs_is_taken_with_a_warning() {
    let mut findings = found();
    findings.state = DatabaseState::Empty(EmptyDatabase {
        owned: false,
        may_create: true,
        locale: Locale {
            encoding: "LATIN1".into(),
            ..locale()
        },
        extensions: BTreeMap::new(),
    });
    insta::assert_snapshot!(steps_of(&asked(), &findings).warnings.join("\n"));
}
