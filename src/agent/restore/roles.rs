//! Step `roles`: makes the roles of the backup that the target does not have. Roles that are there stay as they are.
//! All are made in one transaction, each with the run's mark as its comment until the restore is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use secrecy::{ExposeSecret as _, SecretString};

use super::attempt::Attempt;
use super::mark::Mark;
use super::passwords;
use super::undo;
use crate::plan::Refusal;
use crate::postgres::quote::{identifier, literal};
use crate::store::manifest::{MembershipManifest, RoleManifest};

/// Makes the roles. Those that an earlier attempt of this run made are there already, with the mark.
pub(super) async fn run(attempt: &mut Attempt<'_>) -> Result<String, Refusal> {
    let verifiers = match attempt.source.globals().await? {
        Some(globals) => passwords::verifiers(&globals),
        None => BTreeMap::new(),
    };
    let made: BTreeSet<_> = undo::marked_roles(attempt.guard.session(), &attempt.plan.run)
        .await?
        .into_iter()
        .collect();
    let wanted: Vec<_> = attempt
        .steps
        .roles
        .iter()
        .filter(|role| !made.contains(*role))
        .cloned()
        .collect();
    let statements = statements(attempt, &wanted, &verifiers);
    let session = attempt.guard.session_mut();
    let result = async {
        let transaction = session.transaction().await?;
        for statement in &statements {
            transaction.batch_execute(statement.expose_secret()).await?;
        }
        transaction.commit().await
    }
    .await;
    result.map_err(|error| {
        attempt
            .guard
            .session()
            .refusal(&error, "making the missing roles", None)
    })?;
    for role in wanted.iter().filter(|role| !verifiers.contains_key(*role)) {
        let login = attempt
            .source
            .manifest
            .roles
            .iter()
            .any(|known| known.name == **role && known.login);
        if login {
            attempt.context.reporter.warn(format!(
                "The role {role:?} was made without a password: the backup has none. Set one before somebody logs in with it."
            ));
        }
    }
    Ok(format!("{} roles made", wanted.len()))
}

fn statements(
    attempt: &Attempt<'_>,
    wanted: &[String],
    verifiers: &BTreeMap<String, SecretString>,
) -> Vec<SecretString> {
    let mark = Mark::new(&attempt.plan.run, &attempt.name).to_comment();
    let manifest = &attempt.source.manifest;
    let mut statements = Vec::new();
    for role in manifest.roles.iter().filter(|role| wanted.contains(&role.name)) {
        statements.push(create(role, verifiers.get(&role.name)));
        let comment = format!("COMMENT ON ROLE {} IS {}", identifier(&role.name), literal(&mark));
        statements.push(comment.into());
        let settings = manifest.role_settings.iter();
        for setting in settings.filter(|setting| setting.role == role.name && setting.database.is_none()) {
            match &setting.value {
                Some(value) => statements.push(
                    format!(
                        "ALTER ROLE {} SET {} TO {}",
                        identifier(&role.name),
                        setting_name(&setting.name),
                        setting_value(&setting.name, value)
                    )
                    .into(),
                ),
                None => attempt.context.reporter.warn(format!(
                    "The setting {} of the role {:?} was not taken over: it may be a secret, and is not in the manifest.",
                    setting.name, role.name
                )),
            }
        }
    }
    let known = |role: &String| wanted.contains(role) || attempt.steps.roles.contains(role);
    let major = attempt.guard.session().server_major();
    let memberships = manifest.memberships.iter();
    for membership in memberships.filter(|membership| wanted.contains(&membership.member)) {
        statements.push(grant(membership, major).into());
    }
    if !attempt.source.manifest.roles.is_empty() {
        // Objects can be given to a role only by its members.
        let owners = attempt.definitions.needs.owners.keys();
        let to_self = owners
            .filter(|owner| known(owner))
            .map(|owner| grant_to_self(owner, major).into());
        statements.extend(to_self);
    }
    statements
}

fn create(role: &RoleManifest, verifier: Option<&SecretString>) -> SecretString {
    let RoleManifest {
        oid: _,
        name,
        superuser,
        inherit,
        create_role,
        create_database,
        login,
        replication,
        bypass_row_level_security,
        connection_limit,
        valid_until,
        comment: _, // given when the mark goes
        built_in: _,
    } = role;
    let mut sql = format!("CREATE ROLE {} WITH", identifier(name));
    for (has, attribute) in [
        (*superuser, " SUPERUSER"),
        (*create_role, " CREATEROLE"),
        (*create_database, " CREATEDB"),
        (*login, " LOGIN"),
        (*replication, " REPLICATION"),
        (*bypass_row_level_security, " BYPASSRLS"),
    ] {
        if has {
            sql.push_str(attribute);
        }
    }
    sql.push_str(if *inherit { " INHERIT" } else { " NOINHERIT" });
    if *connection_limit >= 0 {
        let _ = write!(sql, " CONNECTION LIMIT {connection_limit}");
    }
    if let Some(until) = valid_until {
        let _ = write!(sql, " VALID UNTIL {}", literal(until));
    }
    if let Some(verifier) = verifier {
        let _ = write!(sql, " PASSWORD {}", literal(verifier.expose_secret()));
    }
    sql.into()
}

fn grant(membership: &MembershipManifest, major: u32) -> String {
    let MembershipManifest {
        role,
        member,
        grantor: _, // whoever restores
        admin,
        inherit,
        set,
    } = membership;
    let mut options = Vec::new();
    if *admin {
        options.push("ADMIN OPTION".to_owned());
    }
    if major >= 16 {
        options = vec![format!("ADMIN {admin}")];
        options.extend(inherit.map(|inherit| format!("INHERIT {inherit}")));
        options.extend(set.map(|set| format!("SET {set}")));
    }
    let options = if options.is_empty() {
        String::new()
    } else {
        format!(" WITH {}", options.join(", "))
    };
    format!("GRANT {} TO {}{options}", identifier(role), identifier(member))
}

fn grant_to_self(role: &str, major: u32) -> String {
    let options = if major >= 16 {
        " WITH SET TRUE, INHERIT TRUE"
    } else {
        ""
    };
    format!("GRANT {} TO CURRENT_USER{options}", identifier(role))
}

/// A setting's name as `ALTER … SET` takes it: its parts, between dots, each quoted.
fn setting_name(name: &str) -> String {
    name.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

/// Lists of names (`GUC_LIST_QUOTE`) stand in the catalog as they are written; every other value is one text.
fn setting_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 6] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    if LISTS.contains(&name) {
        value.to_owned()
    } else {
        literal(value)
    }
}

/// Statements that take the marks from the roles of the run, and what was needed of them during the restore.
pub(super) fn unmark(attempt: &Attempt<'_>, marked: &[String]) -> Vec<String> {
    let owners = &attempt.definitions.needs.owners;
    marked
        .iter()
        .flat_map(|name| {
            let role = attempt.source.manifest.roles.iter().find(|role| role.name == *name);
            let comment = role
                .and_then(|role| role.comment.as_ref())
                .map_or("NULL".into(), |text| literal(text));
            let revoke = owners
                .contains_key(name)
                .then(|| format!("REVOKE {} FROM CURRENT_USER", identifier(name)));
            [format!("COMMENT ON ROLE {} IS {comment}", identifier(name))]
                .into_iter()
                .chain(revoke)
        })
        .collect()
}
