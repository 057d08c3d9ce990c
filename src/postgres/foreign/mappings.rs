//! What becomes of the user mappings of one foreign server.

use std::collections::BTreeSet;

use super::options::secret;
use super::request::{ForeignRewriteRequest, MappingDecision};
use super::server::{ForeignServer, LocalUser};
use crate::api::foreign_servers::UserMappingRule;
use crate::api::reasons;
use crate::plan::Refusal;

/// Decides over every mapping of a server, and says in a sentence without values what becomes of each.
pub(super) fn decide_mappings(
    server: &ForeignServer,
    rules: &[UserMappingRule],
    request: &ForeignRewriteRequest<'_>,
) -> Result<(Vec<MappingDecision>, Vec<String>), Refusal> {
    let mut decisions = Vec::new();
    let mut sentences = Vec::new();
    refuse_doubles(
        server,
        rules.iter().map(|rule| LocalUser::from(rule.local_user.as_str())),
        "rules",
    )?;
    let rule_of = |user: &LocalUser| {
        rules
            .iter()
            .find(|rule| LocalUser::from(rule.local_user.as_str()) == *user)
    };
    for mapping in &server.user_mappings {
        let (decision, sentence) = decide_one(Some(&mapping.user), rule_of(&mapping.user), request)?;
        sentences.push(format!("{}: {sentence}", mapping.user));
        decisions.push(decision);
    }
    for rule in rules {
        let user = LocalUser::from(rule.local_user.as_str());
        let exists = server.user_mappings.iter().any(|mapping| mapping.user == user);
        if !exists && rule.secret_ref.is_some() {
            let (mut decision, sentence) = decide_one(Some(&user), Some(rule), request)?;
            decision.from = None;
            sentences.push(format!("{user}: added, {sentence}"));
            decisions.push(decision);
        }
    }
    refuse_doubles(
        server,
        decisions.iter().filter_map(|decision| decision.to.clone()),
        "user mappings",
    )?;
    Ok((decisions, sentences))
}

fn decide_one(
    user: Option<&LocalUser>,
    rule: Option<&UserMappingRule>,
    request: &ForeignRewriteRequest<'_>,
) -> Result<(MappingDecision, String), Refusal> {
    let from = user.cloned();
    if rule.is_some_and(|rule| rule.drop == Some(true)) {
        let dropped = MappingDecision {
            from,
            to: None,
            options: None,
        };
        return Ok((dropped, "dropped".into()));
    }
    let to = from.as_ref().map(|from| on_target(from, rule, request));
    let (options, mut sentence) = match rule.and_then(|rule| rule.secret_ref.as_ref()) {
        None => (None, "kept".to_owned()),
        Some(reference) => {
            let options = secret(request, &reference.name)?.clone();
            let names: Vec<_> = options.keys().cloned().collect();
            let sentence = format!("options {} from the Secret {:?}", names.join(", "), reference.name);
            (Some(options), sentence)
        }
    };
    if let Some(to) = to.as_ref().filter(|to| Some(*to) != from.as_ref()) {
        sentence = format!("{sentence}, now for {to}");
    }
    Ok((MappingDecision { from, to, options }, sentence))
}

/// Whom a mapping is for on the target: the rule's new role, else the role that takes the place of the backup's.
fn on_target(from: &LocalUser, rule: Option<&UserMappingRule>, request: &ForeignRewriteRequest<'_>) -> LocalUser {
    if let Some(renamed) = rule.and_then(|rule| rule.rename_to.as_deref()) {
        return renamed.into();
    }
    match from.role().and_then(|role| request.role_mapping.get(role)) {
        Some(mapped) => LocalUser::Role(mapped.clone()),
        None => from.clone(),
    }
}

fn refuse_doubles(server: &ForeignServer, users: impl Iterator<Item = LocalUser>, what: &str) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for user in users {
        if !seen.insert(user.clone()) {
            return Err(Refusal::permanent(
                reasons::INVALID_SPEC,
                format!("the foreign server {:?} would have two {what} for {user}", server.name),
            )
            .object(format!("server {}", server.name))
            .hint("Drop one of them, or rename it to another role."));
        }
    }
    Ok(())
}
