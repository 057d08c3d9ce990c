use super::archives::*;
use super::*;
use crate::plan::Refusal;
use crate::postgres::foreign::{ForeignServer, decide, strip_credentials};

/// The example's servers, stripped, without the subscription.
fn stripped() -> (Vec<ForeignServer>, Vec<StrippedCredential>) {
    let mut toc = example();
    toc.remove(|entry| entry.description == "SUBSCRIPTION");
    let stripped = strip_credentials(&mut toc).unwrap();
    (servers(&toc), stripped)
}

fn refused(mut asked: Asked) -> Refusal {
    let (servers, stripped) = stripped();
    asked.stripped = stripped;
    decide(&servers, &[], &asked.request()).expect_err("it is refused")
}

const ODD: &str =
    "{match: {name: odd}, options: {drop: [url, secret token, 'odd \" option']}, wrapperOptions: {drop: [api key]}}";
const ORDERS: &str = "{match: {name: orders}}";

#[test]
fn the_sentences_of_refused_rewrites_help() {
    let billing = |more: &str| format!("{{match: {{option: {{port: '5432'}}}}{more}}}");
    let rules = |rules: &[&str]| Asked::rules(&format!("[{}]", rules.join(", "))).roles(&["app", "bare role"]);
    let replaced = ", userMappings: [{localUser: app, secretRef: {name: s}}, {localUser: PUBLIC, drop: true}]";
    let unmatched = refused(rules(&[ODD]));
    let overlap = refused(rules(&["{match: {wrapper: postgres_fdw}}", ODD, ORDERS]));
    let unused = refused(rules(&["{match: {name: missing, option: {password: x}}}"]));
    let needed = refused(rules(&[&billing(""), ORDERS, "{match: {name: odd}}"]));
    let missing_secret = refused(rules(&[&billing(replaced), ORDERS, ODD]));
    let role = refused(
        Asked::rules(&format!("[{}, {ORDERS}, {ODD}]", billing(replaced)))
            .secret("s", &[("user", "x")])
            .roles(&["bare role"]),
    );
    let unknown_mapping = refused(rules(&[
        &billing(", userMappings: [{localUser: nobody, drop: true}]"),
        ORDERS,
        ODD,
    ]));
    let doubled = refused(rules(&[
        &billing(", userMappings: [{localUser: bare role, renameTo: app, keep: true}]"),
        ORDERS,
        ODD,
    ]));
    let twice = refused(
        rules(&[
            &billing(", options: {set: {user: a}, secretRef: {name: s}}"),
            ORDERS,
            ODD,
        ])
        .secret("s", &[("user", "x")]),
    );
    let unknown_table = refused(rules(&[
        &billing(", foreignTables: [{name: no, options: {}}]"),
        ORDERS,
        ODD,
    ]));
    insta::assert_yaml_snapshot!([
        ("unmatched", unmatched),
        ("overlap", overlap),
        ("unused", unused),
        ("needed", needed),
        ("missing secret", missing_secret),
        ("role", role),
        ("unknown mapping", unknown_mapping),
        ("doubled", doubled),
        ("option twice", twice),
        ("unknown table", unknown_table),
    ]);
}

#[test]
fn the_manifest_and_the_stripped_archive_give_the_same_decision() {
    let (from_archive, stripped) = stripped();
    let mut whole = example();
    whole.remove(|entry| entry.description == "SUBSCRIPTION");
    let from_manifest = servers(&whole);
    let mut asked = Asked::rules(&format!(
        "[{{match: {{name: '{BILLING}'}}, userMappings: [{{localUser: app, secretRef: {{name: s}}}}, \
         {{localUser: PUBLIC, drop: true}}]}}, {ORDERS}, {ODD}]"
    ))
    .secret("s", &[("user", "x"), ("password", "canary")])
    .roles(&["app", "bare role"]);
    asked.stripped = stripped;
    let decided = |servers: &[ForeignServer]| {
        let decision = decide(servers, &[], &asked.request()).unwrap();
        assert!(!format!("{decision:?}").contains("canary"));
        decision.changes()
    };
    assert_eq!(decided(&from_archive), decided(&from_manifest));
}

#[test]
fn a_kept_server_needs_its_stripped_credentials_too() {
    let refusal = refused(
        Asked::rules("[]")
            .unmatched(UnmatchedForeignServers::Keep)
            .roles(&["app", "bare role"]),
    );
    assert_eq!(refusal.reason, crate::api::reasons::CREDENTIALS_NEEDED);
    for named in ["user mapping of app", "user mapping of PUBLIC", "secret token", "url"] {
        assert!(refusal.message.contains(named), "{named}: {}", refusal.message);
    }
}

#[test]
fn a_dropped_server_needs_nothing() {
    let (servers, stripped) = stripped();
    let mut asked = Asked::rules("[]").unmatched(UnmatchedForeignServers::Drop);
    asked.stripped = stripped;
    let decision = decide(&servers, &[], &asked.request()).unwrap();
    assert!(decision.changes().iter().all(|change| change.after.is_empty()));
}

#[test]
fn subscriptions_are_connected_dropped_or_kept_where_nothing_was_stripped() {
    use crate::postgres::foreign::{CredentialHolder, SubscriptionDecision};
    let mut asked = Asked::default();
    let names = ["a".to_owned(), "b".to_owned()];
    let decision = decide(&[], &names, &asked.request()).unwrap();
    assert!(
        decision
            .subscriptions
            .values()
            .all(|it| matches!(it, SubscriptionDecision::Keep))
    );

    asked.stripped = names
        .iter()
        .map(|name| StrippedCredential {
            holder: CredentialHolder::Subscription { name: name.clone() },
            options: vec!["password".into()],
            unknown: false,
        })
        .collect();
    asked
        .subscription_connections
        .insert("a".into(), SecretString::from("host=x"));
    let refusal = decide(&[], &names, &asked.request()).unwrap_err();
    assert_eq!(
        refusal.message,
        "the backup does not hold the credentials of subscription \"b\" (without password)"
    );

    asked.drop_subscriptions = true;
    let decision = decide(&[], &names, &asked.request()).unwrap();
    assert!(matches!(decision.subscriptions["a"], SubscriptionDecision::Connect(_)));
    assert!(matches!(decision.subscriptions["b"], SubscriptionDecision::Drop));

    asked
        .subscription_connections
        .insert("c".into(), SecretString::from("host=x"));
    assert!(decide(&[], &names, &asked.request()).is_err(), "no subscription c");
}
