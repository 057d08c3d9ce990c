//! Prints foreign servers as rules that are ready to fill in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::inventory::Inventory;
use super::server::{ForeignServer, ShownOptions};

/// The block `foreignServers:` of a `PgRestore` for these servers, in YAML: each server by its name, with the options
/// that are no secret as they are, a line for each that is, and a Secret for each user mapping that has options.
#[must_use]
pub fn template(inventory: &Inventory) -> String {
    if inventory.servers.is_empty() {
        return "foreignServers: []\n".into();
    }
    let mut text = String::from("foreignServers:\n");
    let mut names = SecretNames::default();
    let mut wrappers = BTreeSet::new();
    for server in &inventory.servers {
        write_server(&mut text, server);
        write_mappings(&mut text, server, inventory, &mut names);
        write_tables(&mut text, server);
        // One rule of a wrapper speaks for all of its servers.
        let options = inventory
            .wrappers
            .get(&server.wrapper)
            .filter(|options| has_secret(options));
        if let Some(options) = options.filter(|_| wrappers.insert(&server.wrapper)) {
            text.push_str("    wrapperOptions:\n");
            write_options(&mut text, &secret_ones(options), "      ");
        }
    }
    text
}

fn write_server(text: &mut String, server: &ForeignServer) {
    let _ = writeln!(text, "  # Foreign data wrapper {}.", scalar(&server.wrapper));
    let _ = writeln!(text, "  - match:\n      name: {}", scalar(&server.name));
    if !server.options.is_empty() {
        text.push_str("    options:\n");
        write_options(text, &server.options, "      ");
    }
}

fn write_mappings(text: &mut String, server: &ForeignServer, inventory: &Inventory, names: &mut SecretNames) {
    if !server.user_mappings.is_empty() {
        text.push_str("    userMappings:\n");
    }
    for mapping in &server.user_mappings {
        let options: Vec<_> = mapping.options.keys().map(|name| scalar(name)).collect();
        let user = mapping.user.to_string();
        let unknown = inventory.unknown.contains(&(server.name.clone(), mapping.user.clone()));
        if unknown {
            text.push_str("      # The Secret's keys are the mapping's options, which could not be seen.\n");
        } else if options.is_empty() {
            // A Secret without keys cannot be told from one that is missing.
            let _ = writeln!(
                text,
                "      # It has no options.\n      - localUser: {}\n        keep: true",
                scalar(&user)
            );
            continue;
        } else {
            let _ = writeln!(
                text,
                "      # The Secret's keys are the mapping's options, here {}.",
                options.join(", ")
            );
        }
        let _ = writeln!(
            text,
            "      - localUser: {}\n        secretRef:\n          name: {}",
            scalar(&user),
            names.next(&server.name, &user)
        );
    }
}

fn write_tables(text: &mut String, server: &ForeignServer) {
    let stripped: Vec<_> = server
        .foreign_tables
        .iter()
        .filter(|table| has_secret(&table.options) || table.column_options.values().any(has_secret))
        .collect();
    if !stripped.is_empty() {
        text.push_str("    foreignTables:\n");
    }
    for table in stripped {
        for (column, options) in std::iter::once((None, &table.options))
            .chain(
                table
                    .column_options
                    .iter()
                    .map(|(column, options)| (Some(column), options)),
            )
            .filter(|(_, options)| has_secret(options))
        {
            let _ = writeln!(
                text,
                "      - schema: {}\n        name: {}",
                scalar(&table.schema),
                scalar(&table.name)
            );
            if let Some(column) = column {
                let _ = writeln!(text, "        column: {}", scalar(column));
            }
            text.push_str("        options:\n");
            write_options(text, &secret_ones(options), "          ");
        }
    }
}

fn has_secret(options: &ShownOptions) -> bool {
    options.values().any(Option::is_none)
}

fn secret_ones(options: &ShownOptions) -> ShownOptions {
    let secret = options.iter().filter(|(_, value)| value.is_none());
    secret.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Options as they are; secret ones from a Secret, or to be dropped.
fn write_options(text: &mut String, options: &ShownOptions, indent: &str) {
    let shown: Vec<_> = options
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        .collect();
    if !shown.is_empty() {
        let _ = writeln!(text, "{indent}set:");
    }
    for (name, value) in shown {
        let _ = writeln!(text, "{indent}  {}: {}", scalar(name), scalar(value));
    }
    let secret: Vec<_> = options
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| scalar(name))
        .collect();
    if !secret.is_empty() {
        let _ = writeln!(
            text,
            "{indent}# Secret: take these from a Secret whose keys are {}, by secretRef,",
            secret.join(", ")
        );
        let _ = writeln!(
            text,
            "{indent}# or leave them out:\n{indent}drop: [{}]",
            secret.join(", ")
        );
    }
}

/// A text as YAML reads it back: a JSON string, unless it is a plain word.
fn scalar(text: &str) -> String {
    let word = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'.')
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if word {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// Names of Secrets, each given once: two roles may differ in what a Secret's name cannot hold.
#[derive(Default)]
struct SecretNames(BTreeSet<String>);

impl SecretNames {
    fn next(&mut self, server: &str, user: &str) -> String {
        let name = secret_name(server, user);
        let mut unique = name.clone();
        let mut number = 2;
        while !self.0.insert(unique.clone()) {
            unique = format!("{name}-{number}");
            number += 1;
        }
        unique
    }
}

/// A name that Kubernetes takes for a Secret (RFC 1123): lowercase letters, digits and hyphens.
fn secret_name(server: &str, user: &str) -> String {
    let text = format!("{server}-{user}").to_ascii_lowercase();
    let parts: Vec<&str> = text
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect();
    let mut name = parts.join("-");
    name.truncate(63);
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        "mapping".into()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::foreign_servers::ForeignServerRule;
    use crate::postgres::foreign::server::{LocalUser, UserMapping};

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Block {
        foreign_servers: Vec<ForeignServerRule>,
    }

    fn read(text: &str) -> Vec<ForeignServerRule> {
        let block: Block = serde_saphyr::from_str(text).unwrap();
        crate::plan::foreign_rules::check(&block.foreign_servers, "foreignServers").unwrap();
        block.foreign_servers
    }

    #[test]
    fn the_template_is_yaml_that_selects_the_servers_it_was_made_from() {
        let options = |pairs: &[(&str, Option<&str>)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect()
        };
        let servers = [
            ForeignServer {
                name: "billing_remote".into(),
                wrapper: "postgres_fdw".into(),
                options: options(&[
                    ("host", Some("db.internal")),
                    ("port", Some("5432")),
                    ("dbname", Some("yes")),
                ]),
                user_mappings: vec![UserMapping {
                    user: LocalUser::Role("app \"x\"\n".into()),
                    options: options(&[("user", Some("u")), ("password", None)]),
                }],
                ..ForeignServer::default()
            },
            ForeignServer {
                name: "odd.server: \"name\"\n#".into(),
                wrapper: "odd".into(),
                options: options(&[("secret token", None)]),
                user_mappings: vec![UserMapping {
                    user: LocalUser::Public,
                    options: options(&[]),
                }],
                ..ForeignServer::default()
            },
        ];
        let inventory = Inventory {
            servers: servers.to_vec(),
            wrappers: BTreeMap::from([
                ("postgres_fdw".into(), options(&[("debug", Some("true"))])),
                ("odd".into(), options(&[("debug", Some("true")), ("api key", None)])),
            ]),
            unknown: BTreeSet::new(),
        };
        let text = template(&inventory);
        let rules = read(&text);
        for (server, rule) in servers.iter().zip(&rules) {
            assert_eq!(rule.matches.name.as_ref(), Some(&server.name));
            assert_eq!(rule.user_mappings.len(), server.user_mappings.len());
            let changes = rule.options.as_ref().unwrap();
            for (name, value) in &server.options {
                match value {
                    Some(value) => assert_eq!(changes.set.get(name), Some(value)),
                    None => assert!(changes.drop.contains(name)),
                }
            }
        }
        assert_eq!(rules[0].wrapper_options, None);
        assert_eq!(rules[1].wrapper_options.as_ref().unwrap().drop, ["api key"]);
        insta::assert_snapshot!(text);
    }

    fn server_with(mappings: &[(&str, &[&str])]) -> ForeignServer {
        let mapping = |(user, options): &(&str, &[&str])| UserMapping {
            user: LocalUser::Role((*user).into()),
            options: options.iter().map(|option| ((*option).into(), None)).collect(),
        };
        ForeignServer {
            name: "far".into(),
            wrapper: "postgres_fdw".into(),
            user_mappings: mappings.iter().map(mapping).collect(),
            ..ForeignServer::default()
        }
    }

    #[test]
    fn each_mapping_has_a_secret_of_its_own() {
        let servers = vec![server_with(&[("a b", &["x"]), ("a-b", &["x"]), ("a_b", &["x"])])];
        let inventory = Inventory {
            servers,
            ..Inventory::default()
        };
        let rules = read(&template(&inventory));
        let names: BTreeSet<_> = rules[0]
            .user_mappings
            .iter()
            .map(|rule| rule.secret_ref.clone())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }

    #[test]
    fn a_mapping_without_options_needs_no_secret_unless_they_could_not_be_seen() {
        let unseen = ("far".to_owned(), LocalUser::Role("unseen".into()));
        let inventory = Inventory {
            servers: vec![server_with(&[("bare", &[]), ("unseen", &[])])],
            unknown: BTreeSet::from([unseen]),
            ..Inventory::default()
        };
        let rules = read(&template(&inventory));
        let [bare, unseen] = &rules[0].user_mappings[..] else {
            panic!("{rules:?}")
        };
        assert_eq!((bare.keep, bare.secret_ref.is_some()), (Some(true), false));
        assert_eq!((unseen.keep, unseen.secret_ref.is_some()), (None, true));
    }

    #[test]
    fn no_servers_give_an_empty_block() {
        assert_eq!(template(&Inventory::default()), "foreignServers: []\n");
    }
}
