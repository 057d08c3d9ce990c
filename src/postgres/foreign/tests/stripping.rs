use super::archives::*;
use super::*;
use crate::postgres::archive::sample::{entry, toc};
use crate::postgres::foreign::{
    CredentialHolder, LocalUser, mappings_without_options, strip_credentials, subscriptions,
};

#[test]
fn a_stripped_archive_holds_no_secret_and_says_what_it_held() {
    let mut toc = example();
    assert!(holds(&toc, "canary"));
    let stripped = strip_credentials(&mut toc).unwrap();
    assert!(!holds(&toc, "canary"));
    insta::assert_yaml_snapshot!(stripped);
    assert!(
        strip_credentials(&mut toc).unwrap().is_empty(),
        "nothing is left to strip"
    );
}

#[test]
fn what_is_no_secret_stays() {
    let before = example();
    let mut toc = example();
    strip_credentials(&mut toc).unwrap();
    for untouched in [SERVER, BARE_MAPPING, OTHER_SERVER, OTHER_MAPPING, TABLE] {
        assert_eq!(definition_of(&toc, untouched), definition_of(&before, untouched));
    }
    assert_eq!(
        options_of(&toc, APP_MAPPING),
        BTreeMap::from([("user".into(), "u'\\".into())])
    );
    assert_eq!(
        definition_of(&toc, SUBSCRIPTION),
        "CREATE SUBSCRIPTION sub CONNECTION 'dbname=''d'' host=''h'' port=''1'' user=''r''' PUBLICATION p WITH \
         (connect = false, slot_name = 'sub');\n"
    );
    assert_eq!(subscriptions(&toc).unwrap(), ["sub"]);
}

#[test]
fn the_inventory_shows_no_secret() {
    let found = servers(&example());
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("canary"), "{text}");
    insta::assert_yaml_snapshot!(found);
}

#[test]
fn a_mapping_without_options_is_unknown_to_a_role_that_may_not_see_them() {
    let unknown = mappings_without_options(&example()).unwrap();
    let holder = CredentialHolder::UserMapping {
        server: BILLING.into(),
        user: LocalUser::Role("bare role".into()),
    };
    assert_eq!(unknown.iter().map(|it| &it.holder).collect::<Vec<_>>(), [&holder]);
    assert!(unknown[0].unknown && unknown[0].options.is_empty());
}

#[test]
fn an_unreadable_connection_string_is_left_out_as_a_whole() {
    let sql =
        "CREATE SUBSCRIPTION s CONNECTION 'canary without an equals sign' PUBLICATION p WITH (connect = false);\n";
    let mut toc = toc([entry(10, "SUBSCRIPTION", "s", sql)]);
    let stripped = strip_credentials(&mut toc).unwrap();
    assert!(!holds(&toc, "canary"));
    assert_eq!(stripped[0].options, ["conninfo"]);
}

#[test]
fn a_uri_of_a_subscription_loses_its_password_alone() {
    let sql = "CREATE SUBSCRIPTION s CONNECTION 'postgresql://r:can%61ry@h1:1,h2:2/d?sslmode=require' PUBLICATION p;\n";
    let mut toc = toc([entry(10, "SUBSCRIPTION", "s", sql)]);
    let stripped = strip_credentials(&mut toc).unwrap();
    assert_eq!(stripped[0].options, ["password"]);
    assert_eq!(
        definition_of(&toc, 10),
        "CREATE SUBSCRIPTION s CONNECTION 'dbname=''d'' host=''h1,h2'' port=''1,2'' sslmode=''require'' user=''r''' \
         PUBLICATION p;\n"
    );
}

#[test]
fn secrets_of_a_column_go_with_their_statement() {
    let mut toc = toc([
        server(20, "s", "x", &[]),
        table(40, "t", ("s", 20), &[("path", "p")], &[("password", "canary")]),
    ]);
    let stripped = strip_credentials(&mut toc).unwrap();
    assert!(!holds(&toc, "canary"));
    assert!(
        !definition_of(&toc, 40).contains("ALTER"),
        "an empty list of options is no SQL"
    );
    assert!(
        matches!(&stripped[0].holder, CredentialHolder::ForeignTable { column: Some(column), .. } if column == "a b")
    );
}

#[test]
fn a_definition_that_is_not_what_pg_dump_writes_is_refused_without_showing_it() {
    for sql in [
        "",
        "garbage canary",
        "DROP SERVER canary",
        "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (a 'canary",
    ] {
        let mut toc = toc([entry(10, "SERVER", "s", sql)]);
        let error = strip_credentials(&mut toc).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn names_that_are_not_utf8_are_kept_byte_for_byte() {
    let mut sql =
        b"CREATE USER MAPPING FOR \"gr\xF6\xDFe\" SERVER s OPTIONS (\"user\" 'm\xFCller', password 'canary');\n"
            .to_vec();
    let mut latin = toc([server(20, "s", "postgres_fdw", &[]), entry(21, "USER MAPPING", "x", "")]);
    latin.entries[0].definition = Some("SET client_encoding = 'LATIN1';\n".into());
    latin.entries[3].definition = Some(std::mem::take(&mut sql).into());
    strip_credentials(&mut latin).unwrap();
    assert_eq!(
        latin.entry(21).unwrap().definition.as_ref().unwrap().as_bytes(),
        b"CREATE USER MAPPING FOR \"gr\xF6\xDFe\" SERVER s OPTIONS (\"user\" 'm\xFCller');\n"
    );
}

#[test]
fn backslashes_mean_what_the_dumped_database_said() {
    let sql =
        "CREATE SERVER s TYPE 'a\\\\b' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h', service E'x\\\\y');\n";
    let mut toc = toc([entry(10, "SERVER", "s", sql)]);
    toc.entries[1].definition = Some("SET standard_conforming_strings = 'off';\n".into());
    strip_credentials(&mut toc).unwrap();
    assert_eq!(
        definition_of(&toc, 10),
        "CREATE SERVER s TYPE E'a\\\\b' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h');\n"
    );
}
