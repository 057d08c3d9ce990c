//! Names, options and passwords that nobody would think of.

use proptest::prelude::*;

use super::archives::{mapping, server, table};
use super::*;
use crate::postgres::archive::sample::toc;
use crate::postgres::foreign::{LocalUser, rewrite, strip_credentials};
use crate::postgres::quote::identifier;

/// What breaks careless quoting.
const PIECES: &[&str] = &[
    "'", "\"", "\\", ";", "$", "$$", "$1", "--", "\n", "\r", "\t", " ", "/*", "*/", ".", "=", ",", "(", ")", "é", "☃",
    "E'", "U&'", "SERVER", "OPTIONS", "user", "\u{1}", "a", "Z", "0", "_", "%", "\\'", "'';",
];

fn text(pieces: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), pieces).prop_map(|pieces| pieces.concat())
}

/// A name as PostgreSQL takes it: not empty, at most 63 bytes.
fn name() -> impl Strategy<Value = String> {
    text(1..10).prop_map(|name| {
        let end = (0..=name.len().min(63))
            .rev()
            .find(|end| name.is_char_boundary(*end))
            .unwrap_or(0);
        name[..end].to_owned()
    })
}

fn role() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => name(),
        1 => prop::sample::select(&["PUBLIC", "CURRENT_USER", "current_user", "user", "session_user", "all"][..])
            .prop_map(str::to_owned),
    ]
}

fn options() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(name(), text(0..12), 0..5)
}

fn pairs(options: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_inventory_finds_what_was_written(
        server_name in name(), wrapper in name(), user in role(), table_name in name(), options in options(),
    ) {
        let toc = toc([
            server(20, &server_name, &wrapper, &pairs(&options)),
            mapping(21, &identifier(&user), &server_name, &pairs(&options)),
            table(40, &table_name, (&server_name, 20), &pairs(&options), &pairs(&options)),
        ]);
        let found = servers(&toc);
        prop_assert_eq!(&found[0].name, &server_name);
        prop_assert_eq!(&found[0].wrapper, &wrapper);
        prop_assert_eq!(&found[0].user_mappings[0].user, &LocalUser::Role(user));
        prop_assert_eq!(&found[0].foreign_tables[0].name, &table_name);
        prop_assert!(found[0].options.keys().eq(options.keys()));
        prop_assert_eq!(options_of(&toc, 21), options);
    }

    #[test]
    fn a_stripped_mapping_holds_its_user_alone(
        server_name in name(), user in role(), login in text(0..12), password in text(0..12), rest in options(),
    ) {
        prop_assume!(!crate::postgres::foreign::is_secret(crate::postgres::foreign::OptionOf::UserMapping, "user", &login));
        let secret = format!("canary{password}");
        let mut all = rest;
        all.retain(|name, _| name != "user");
        all.insert("password".into(), secret);
        let expected: std::collections::BTreeSet<_> = all.keys().cloned().collect();
        all.insert("user".into(), login.clone());
        let mut toc = toc([
            server(20, &server_name, "postgres_fdw", &[]),
            mapping(21, &identifier(&user), &server_name, &pairs(&all)),
        ]);
        let stripped = strip_credentials(&mut toc).unwrap();
        prop_assert!(!holds(&toc, "canary"));
        prop_assert_eq!(options_of(&toc, 21), BTreeMap::from([("user".to_owned(), login)]));
        prop_assert_eq!(stripped[0].options.iter().cloned().collect::<std::collections::BTreeSet<_>>(), expected);
    }

    #[test]
    fn a_rewritten_archive_holds_exactly_what_the_secret_says(
        server_name in name(), other_name in name(), user in role(), renamed in role(),
        before in options(), secret in options(), set in options(), table_name in name(),
    ) {
        prop_assume!(server_name != other_name);
        let original = [
            server(20, &server_name, "w", &pairs(&before)),
            mapping(21, &identifier(&user), &server_name, &pairs(&before)),
            table(22, &table_name, (&server_name, 20), &pairs(&before), &[]),
            server(30, &other_name, "w", &pairs(&before)),
            mapping(31, &identifier(&user), &other_name, &pairs(&before)),
        ];
        let mut toc = toc(original.clone());
        let mut asked = Asked::default().unmatched(UnmatchedForeignServers::Keep).roles(&[&user, &renamed]);
        asked.secrets.insert("s".into(), secret.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect());
        let local = |role: &str| LocalUser::Role(role.to_owned()).to_string();
        asked.rules = serde_json::from_value(serde_json::json!([{
            "match": {"name": server_name},
            "options": {"set": set},
            "userMappings": [{"localUser": local(&user), "secretRef": {"name": "s"}, "renameTo": local(&renamed)}],
            "foreignTables": [{"options": {"set": set}}, {"column": "a b", "options": {"set": set}}],
        }])).unwrap();
        rewrite(&mut toc, &asked.request()).unwrap();

        let mut expected = before.clone();
        expected.extend(set.clone());
        prop_assert_eq!(options_of(&toc, 20), expected.clone());
        prop_assert_eq!(options_of(&toc, 22), expected);
        prop_assert_eq!(options_of(&toc, 21), secret);
        let found = servers(&toc);
        prop_assert_eq!(&found[0].user_mappings[0].user, &LocalUser::Role(renamed));
        let column = found[0].foreign_tables[0].column_options.get("a b");
        prop_assert!(column.map_or(set.is_empty(), |column| column.keys().eq(set.keys())));
        for entry in &original[3..] {
            prop_assert_eq!(toc.entry(entry.dump_id).unwrap(), entry);
        }
    }
}
