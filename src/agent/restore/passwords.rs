//! Password verifiers of roles, out of `globals.sql`. The file is read, never run: a verifier is taken only where the
//! parser sees `ALTER ROLE … PASSWORD` with one, and where no second one contradicts it.

use std::collections::BTreeMap;

use pg_query::{NodeEnum, ParserOptions};
use secrecy::SecretString;

/// Verifiers by role.
pub(super) fn verifiers(globals: &str) -> BTreeMap<String, SecretString> {
    // psql's own commands are no SQL (`\restrict` and `\unrestrict`, since 2025).
    let sql: String = globals
        .lines()
        .filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for statement in pg_query::split_with_scanner(&sql).unwrap_or_default() {
        let Ok(parsed) = pg_query::parse(statement, ParserOptions::DEFAULT) else {
            continue;
        };
        for raw in parsed.protobuf.stmts {
            let Some(NodeEnum::AlterRoleStmt(alter)) = raw.stmt.and_then(|stmt| stmt.node) else {
                continue;
            };
            let Some(role) = alter.role.map(|role| role.rolename) else {
                continue;
            };
            let passwords = alter.options.into_iter().filter_map(|option| match option.node {
                Some(NodeEnum::DefElem(option)) if option.defname == "password" => text(option.arg?.node?),
                _ => None,
            });
            for password in passwords.filter(|password| is_verifier(password)) {
                let kept = found.entry(role.clone()).or_insert_with(|| Some(password.clone()));
                if kept.as_ref().is_some_and(|kept| *kept != password) {
                    *kept = None;
                }
            }
        }
    }
    found
        .into_iter()
        .filter_map(|(role, verifier)| Some((role, SecretString::from(verifier?))))
        .collect()
}

fn text(node: NodeEnum) -> Option<String> {
    match node {
        NodeEnum::String(text) => Some(text.sval),
        _ => None,
    }
}

/// The two forms in which PostgreSQL stores passwords (manual, `pg_authid.rolpassword`). Anything else would be taken
/// as a password in clear.
fn is_verifier(password: &str) -> bool {
    let md5 = password.strip_prefix("md5").is_some_and(|hash| hash.len() == 32);
    md5 || password.starts_with("SCRAM-SHA-256$")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn verifiers_are_found_and_nothing_else_is() {
        let hash = "md500000000000000000000000000000000";
        let globals = format!(
            "--\n-- dump\n--\n\n\\restrict abc\n\nSET default_transaction_read_only = off;\n\
             CREATE ROLE \"it's \"\"x\"\"\";\nALTER ROLE \"it's \"\"x\"\"\" WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a$b:c';\n\
             ALTER ROLE clear WITH PASSWORD 'canary:clear';\nALTER ROLE none WITH LOGIN PASSWORD NULL;\n\
             ALTER ROLE twice WITH PASSWORD '{hash}';\nALTER ROLE twice WITH PASSWORD 'SCRAM-SHA-256$x';\n\
             ALTER ROLE old WITH LOGIN PASSWORD '{hash}' VALID UNTIL 'infinity';\nALTER ROLE \"a\nb; \" SET x TO 'y';\n\
             \n\\unrestrict abc\n"
        );
        let found = verifiers(&globals);
        let found: Vec<_> = found
            .iter()
            .map(|(role, verifier)| (role.as_str(), verifier.expose_secret()))
            .collect();
        assert_eq!(found, [("it's \"x\"", "SCRAM-SHA-256$4096:a$b:c"), ("old", hash)]);
    }
}
