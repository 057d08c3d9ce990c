//! Credentials that were stripped and that nobody gives back.

use std::collections::BTreeMap;

use super::request::{Changes, ForeignDecision, MappingDecision, ServerDecision, SubscriptionDecision};
use super::stripped::{CredentialHolder, StrippedCredential};
use crate::api::reasons;
use crate::api::status::ForeignServerAction;
use crate::plan::Refusal;

/// Every stripped option must be given a value, or its object or the option be left out.
pub(super) fn refuse_missing_credentials(
    decision: &ForeignDecision,
    stripped: &[StrippedCredential],
) -> Result<(), Refusal> {
    let mut needed = Vec::new();
    let mut hints = BTreeMap::new();
    let mut first = None;
    for credential in stripped {
        let Some(options) = missing(decision, credential) else {
            continue;
        };
        let options = match (credential.unknown, options.is_empty()) {
            (true, true) => "which options it has could not be seen".into(),
            (false, true) => "all".into(),
            (_, false) => format!("without {}", options.join(", ")),
        };
        needed.push(format!("{} ({options})", credential.holder));
        first.get_or_insert_with(|| credential.holder.to_string());
        let (kind, hint) = hint(&credential.holder);
        hints.insert(kind, hint);
    }
    let Some(first) = first else {
        return Ok(());
    };
    Err(Refusal::permanent(
        reasons::CREDENTIALS_NEEDED,
        format!("the backup does not hold the credentials of {}", needed.join("; ")),
    )
    .object(first)
    .hint(hints.into_values().collect::<Vec<_>>().join(" ")))
}

fn hint(holder: &CredentialHolder) -> (u8, &'static str) {
    match holder {
        CredentialHolder::UserMapping { .. } => (
            0,
            "Give each user mapping a secretRef in a rule of foreignServers, or drop it with drop: true.",
        ),
        CredentialHolder::Server { .. } => (
            1,
            "Name the server's options in options.set, options.secretRef or options.drop.",
        ),
        CredentialHolder::ForeignTable { .. } => (2, "Name the table's options in foreignTables."),
        CredentialHolder::Wrapper { .. } => (3, "Name the wrapper's options in wrapperOptions."),
        CredentialHolder::Subscription { .. } => (
            4,
            "Give each subscription a Secret in subscriptions.connections, or leave the others out with \
             subscriptions.drop: true.",
        ),
    }
}

/// The options that nobody gives, or `None` where nothing is missing.
fn missing<'a>(decision: &ForeignDecision, credential: &'a StrippedCredential) -> Option<Vec<&'a str>> {
    let server_named = |name: &str| decision.servers.iter().find(|server| server.name == *name);
    let left = |changes: Option<&Changes>| {
        let open: Vec<_> = credential
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| !changes.is_some_and(|changes| changes.names(option)))
            .collect();
        (!open.is_empty()).then_some(open)
    };
    match &credential.holder {
        CredentialHolder::Server { name } => {
            let server = restored(server_named(name)?)?;
            left(Some(&server.options))
        }
        CredentialHolder::UserMapping { server, user } => {
            let server = restored(server_named(server)?)?;
            let kept = |mapping: &&MappingDecision| mapping.from.as_ref() == Some(user) && mapping.to.is_some();
            let mapping = server.mappings.iter().find(kept)?;
            mapping
                .options
                .is_none()
                .then(|| credential.options.iter().map(String::as_str).collect())
        }
        CredentialHolder::ForeignTable {
            server,
            schema,
            name,
            column,
        } => {
            let server = restored(server_named(server)?)?;
            let table = server
                .tables
                .iter()
                .find(|table| table.schema == *schema && table.name == *name);
            let changes = table.and_then(|table| match column {
                None => Some(&table.options),
                Some(column) => table.columns.get(column),
            });
            left(changes)
        }
        CredentialHolder::Wrapper { name } => {
            // Without a server nothing uses the wrapper's options.
            decision
                .servers
                .iter()
                .find(|server| server.wrapper == *name && server.action != ForeignServerAction::Dropped)?;
            left(decision.wrappers.get(name))
        }
        CredentialHolder::Subscription { name } => match decision.subscriptions.get(name)? {
            SubscriptionDecision::Keep => Some(credential.options.iter().map(String::as_str).collect()),
            SubscriptionDecision::Connect(_) | SubscriptionDecision::Drop => None,
        },
    }
}

fn restored(server: &ServerDecision) -> Option<&ServerDecision> {
    (server.action != ForeignServerAction::Dropped).then_some(server)
}
