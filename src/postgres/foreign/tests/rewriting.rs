use super::archives::*;
use super::*;
use crate::postgres::archive::sample::{entry, toc};
use crate::postgres::foreign::{LocalUser, named_roles, rewrite, strip_credentials};

const RULES: &str = r#"
- match: {name: 'billing.remote "x" SERVER y'}
  options: {set: {host: staging, port: "6432", application_name: "it's"}, drop: [sslmode, sslkey]}
  userMappings:
    - {localUser: app, secretRef: {name: staging-billing}}
    - {localUser: PUBLIC, drop: true}
    - {localUser: bare role, renameTo: reports, keep: true}
    - {localUser: CURRENT_USER, secretRef: {name: staging-billing}}
  foreignTables:
    - {name: in voice, options: {set: {schema_name: staging}}}
    - {column: a b, options: {drop: [column_name]}}
    - {column: id, options: {set: {column_name: it's}}}
- match: {name: odd}
  options: {set: {url: none}, drop: ["secret token", "odd \" option"]}
  wrapperOptions: {drop: [api key]}
"#;

fn asked() -> Asked {
    Asked::rules(RULES)
        .secret(
            "staging-billing",
            &[("user", "s"), ("password", "canary:'\\;$1$$--\n\"")],
        )
        .roles(&["app", "reports", "owner"])
        .unmatched(UnmatchedForeignServers::Keep)
}

#[test]
fn servers_mappings_and_tables_are_rewritten_as_the_rules_say() {
    let before = example();
    let mut toc = example();
    let mut asked = asked();
    asked.stripped = strip_credentials(&mut toc).unwrap();
    asked
        .subscription_connections
        .insert("sub".into(), SecretString::from("host=x password='y z'"));
    let rewritten = rewrite(&mut toc, &asked.request()).unwrap();

    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    };
    assert_eq!(
        options_of(&toc, SERVER),
        pairs(&[
            ("application_name", "it's"),
            ("dbname", "it's \\ \"odd\"; --"),
            ("host", "staging"),
            ("port", "6432")
        ])
    );
    assert_eq!(
        options_of(&toc, APP_MAPPING),
        exposed(&asked.secrets["staging-billing"])
    );
    assert!(toc.entry(PUBLIC_MAPPING).is_none());
    assert_eq!(
        definition_of(&toc, BARE_MAPPING),
        format!("CREATE USER MAPPING FOR reports SERVER {};\n", quoted())
    );
    assert_eq!(
        toc.entry(BARE_MAPPING).unwrap().drop_statement.as_ref().unwrap(),
        &format!("DROP USER MAPPING IF EXISTS FOR \"reports\" SERVER {};\n", quoted()).as_str()
    );
    let added = toc
        .entries
        .iter()
        .find(|entry| entry.dump_id == SUBSCRIPTION + 1)
        .expect("a new number");
    let position = |id| toc.entries.iter().position(|entry| entry.dump_id == id).unwrap();
    assert!(position(added.dump_id) > position(SERVER) && position(added.dump_id) < position(OTHER_SERVER));
    assert!(definition_of(&toc, added.dump_id).starts_with("CREATE USER MAPPING FOR CURRENT_USER SERVER "));
    assert_eq!(
        options_of(&toc, added.dump_id),
        exposed(&asked.secrets["staging-billing"])
    );
    insta::assert_snapshot!(definition_of(&toc, TABLE));
    assert_eq!(
        definition_of(&toc, WRAPPER),
        "CREATE FOREIGN DATA WRAPPER \"odd wrapper\";\n"
    );
    assert!(definition_of(&toc, SUBSCRIPTION).contains("CONNECTION 'host=x password=''y z''' PUBLICATION p"));
    for untouched in [OTHER_SERVER, OTHER_MAPPING] {
        assert_eq!(
            definition_of(&toc, untouched),
            definition_of(&before, untouched),
            "the same host, no rule"
        );
    }

    insta::assert_yaml_snapshot!(rewritten.changes);
    let users: Vec<_> = rewritten
        .servers
        .iter()
        .map(|server| (server.name.as_str(), server.users.clone()))
        .collect();
    let role = |name: &str| LocalUser::Role(name.into());
    assert_eq!(
        users,
        [
            (BILLING, vec![role("app"), role("reports"), LocalUser::CurrentUser]),
            ("orders", vec![role("app")]),
            ("odd", vec![]),
        ]
    );
    let debug = format!("{toc:?} {rewritten:?} {:?}", asked.request());
    assert!(!debug.contains("canary"), "no secret in Debug: {debug}");
}

fn quoted() -> String {
    crate::postgres::quote::identifier(BILLING)
}

#[test]
fn a_refused_rewrite_leaves_the_archive_as_it_was() {
    let mut toc = example();
    let mut asked = asked();
    asked.target_roles.remove("reports");
    rewrite(&mut toc, &asked.request()).unwrap_err();
    assert_eq!(toc, example());
}

#[test]
fn one_rule_moves_every_server_of_a_host() {
    let mut toc = example();
    let asked = Asked::rules("[{match: {option: {host: db.internal}}, options: {set: {host: staging}}}]")
        .roles(&["app", "bare role"])
        .unmatched(UnmatchedForeignServers::Keep);
    rewrite(&mut toc, &asked.request()).unwrap();
    for moved in [SERVER, OTHER_SERVER] {
        assert_eq!(options_of(&toc, moved)["host"], "staging");
    }
    assert_eq!(definition_of(&toc, ODD_SERVER), definition_of(&example(), ODD_SERVER));
}

#[test]
fn roles_are_mapped_in_owners_grants_policies_and_mappings() {
    let acl = "SET SESSION AUTHORIZATION app;\nGRANT SELECT(\"app\"),UPDATE ON TABLE app.app TO app WITH GRANT OPTION;\n\
               GRANT ALL ON TABLE app.app TO \"bare role\", PUBLIC;\nRESET SESSION AUTHORIZATION;\n";
    let defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA app REVOKE ALL ON TABLES FROM other;\n";
    let policy = "CREATE POLICY app ON app.app FOR SELECT TO app, other USING ((owner = 'app'::name));\n";
    let mut toc = toc([
        entry(20, "ACL", "TABLE app", acl),
        entry(21, "DEFAULT ACL", "x", defaults),
        entry(22, "POLICY", "app app", policy),
        server(30, "s", "postgres_fdw", &[]),
        mapping(31, "app", "s", &[("user", "app")]),
    ]);
    toc.entries[2].owner = Some("app".into());
    let mut asked = Asked::rules("[]")
        .unmatched(UnmatchedForeignServers::Keep)
        .roles(&["a\"b", "owner"]);
    asked.role_mapping = BTreeMap::from([("app".into(), "a\"b".into()), ("bare role".into(), "app".into())]);
    rewrite(&mut toc, &asked.request()).unwrap();
    assert_eq!(toc.entry(20).unwrap().owner.as_ref().unwrap(), &"a\"b");
    assert_eq!(
        definition_of(&toc, 20),
        "SET SESSION AUTHORIZATION \"a\"\"b\";\nGRANT SELECT(\"app\"),UPDATE ON TABLE app.app TO \"a\"\"b\" WITH GRANT \
         OPTION;\nGRANT ALL ON TABLE app.app TO \"app\", PUBLIC;\nRESET SESSION AUTHORIZATION;\n"
    );
    assert_eq!(definition_of(&toc, 21), defaults.replace("ROLE app", "ROLE \"a\"\"b\""));
    assert_eq!(definition_of(&toc, 22), policy.replace("TO app", "TO \"a\"\"b\""));
    assert_eq!(
        definition_of(&toc, 31),
        "CREATE USER MAPPING FOR \"a\"\"b\" SERVER s OPTIONS (\"user\" 'app');\n"
    );
    let named: Vec<_> = named_roles(&toc).unwrap().into_iter().collect();
    assert_eq!(named, ["a\"b", "app", "other", "owner"]);
}

#[test]
fn a_value_that_the_archives_encoding_may_spell_otherwise_is_refused() {
    let mut latin = toc([server(20, "s", "postgres_fdw", &[("host", "h")])]);
    latin.entries[0].definition = Some("SET client_encoding = 'LATIN1';\n".into());
    let refused = rewrite(
        &mut latin,
        &Asked::rules("[{match: {name: s}, options: {set: {dbname: größe}}}]").request(),
    );
    assert_eq!(refused.unwrap_err().reason, crate::api::reasons::INVALID_SPEC);
    let asked = Asked::rules("[{match: {name: s}, options: {set: {dbname: size}}}]");
    rewrite(&mut latin, &asked.request()).unwrap();
}

#[test]
fn a_secret_with_a_nul_character_is_refused_and_not_cut() {
    let mut toc = toc([server(20, "s", "postgres_fdw", &[]), mapping(21, "app", "s", &[])]);
    let asked = Asked::rules("[{match: {name: s}, userMappings: [{localUser: app, secretRef: {name: s}}]}]")
        .secret("s", &[("password", "be\0hind")])
        .roles(&["app"]);
    let refusal = rewrite(&mut toc, &asked.request()).unwrap_err();
    assert_eq!(
        refusal.message,
        "USER MAPPING USER MAPPING app SERVER s is given a value with a NUL character, which PostgreSQL cannot store"
    );
}

#[test]
fn a_column_that_does_not_exist_is_refused() {
    let mut toc = example();
    let asked = Asked::rules(
        "[{match: {wrapper: postgres_fdw}, foreignTables: [{column: no, options: {set: {column_name: x}}}]}]",
    )
    .roles(&["app", "bare role"])
    .unmatched(UnmatchedForeignServers::Keep);
    let refused = rewrite(&mut toc, &asked.request()).unwrap_err();
    assert_eq!(refused.message, "FOREIGN TABLE remote.in voice has no column \"no\"");
}
