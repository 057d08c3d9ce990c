//! Prints foreign servers as rules that are ready to fill in.

use std::fmt::Write as _;

use super::server::{ForeignServer, ShownOptions};

/// The block `foreignServers:` of a `PgRestore` for these servers, in YAML: each server by its name, with the options
/// that are no secret as they are, a line for each that is, and a Secret for each user mapping.
#[must_use]
pub fn template(servers: &[ForeignServer]) -> String {
    if servers.is_empty() {
        return "foreignServers: []\n".into();
    }
    let mut text = String::from("foreignServers:\n");
    for server in servers {
        write_server(&mut text, server);
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
    if !server.user_mappings.is_empty() {
        text.push_str("    userMappings:\n");
    }
    for mapping in &server.user_mappings {
        let names: Vec<_> = mapping.options.keys().map(|name| scalar(name)).collect();
        if !names.is_empty() {
            let _ = writeln!(
                text,
                "      # The Secret's keys are the mapping's options, here {}.",
                names.join(", ")
            );
        }
        let user = mapping.user.to_string();
        let secret = secret_name(&server.name, &user);
        let _ = writeln!(
            text,
            "      - localUser: {}\n        secretRef:\n          name: {secret}",
            scalar(&user)
        );
    }
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
            let secret = options.iter().filter(|(_, value)| value.is_none());
            write_options(
                text,
                &secret.map(|(name, value)| (name.clone(), value.clone())).collect(),
                "          ",
            );
        }
    }
}

fn has_secret(options: &ShownOptions) -> bool {
    options.values().any(Option::is_none)
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
    use super::*;
    use crate::api::foreign_servers::ForeignServerRule;
    use crate::postgres::foreign::server::{LocalUser, UserMapping};

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
        let text = template(&servers);
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Block {
            foreign_servers: Vec<ForeignServerRule>,
        }
        let block: Block = serde_saphyr::from_str(&text).unwrap();
        for (server, rule) in servers.iter().zip(&block.foreign_servers) {
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
        insta::assert_snapshot!(text);
    }

    #[test]
    fn no_servers_give_an_empty_block() {
        assert_eq!(template(&[]), "foreignServers: []\n");
    }
}
