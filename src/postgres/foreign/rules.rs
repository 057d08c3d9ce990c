//! Which rule applies to which foreign server.

use crate::api::foreign_servers::{ForeignServerMatch, ForeignServerRule, UnmatchedForeignServers};
use crate::api::reasons;
use crate::plan::Refusal;

use super::secrecy::{MASK, OptionOf, is_secret};
use super::server::ForeignServer;

/// The rule of each server, in the order of the servers. Two rules for one server, a rule for none, and (where that is
/// not allowed) a server without a rule are refusals.
pub(super) fn assign<'r>(
    servers: &[ForeignServer],
    rules: &'r [ForeignServerRule],
    unmatched: UnmatchedForeignServers,
) -> Result<Vec<Option<&'r ForeignServerRule>>, Refusal> {
    let mut assigned = vec![None; servers.len()];
    for (number, rule) in rules.iter().enumerate() {
        let mut used = false;
        for (server, slot) in servers.iter().zip(&mut assigned) {
            if !selects(&rule.matches, server) {
                continue;
            }
            used = true;
            if let Some((other, _)) = slot.replace((number, rule)) {
                return Err(overlap(server, other, number));
            }
        }
        if !used {
            return Err(unused(servers, rule, number));
        }
    }
    let left: Vec<_> = servers
        .iter()
        .zip(&assigned)
        .filter(|(_, rule)| rule.is_none())
        .map(|(server, _)| format!("{:?}", server.name))
        .collect();
    if unmatched == UnmatchedForeignServers::Fail && !left.is_empty() {
        return Err(unmatched_refusal(&left));
    }
    Ok(assigned.into_iter().map(|slot| slot.map(|(_, rule)| rule)).collect())
}

/// Whether every matcher that is given holds, and at least one is given. A secret value matches nothing.
fn selects(matches: &ForeignServerMatch, server: &ForeignServer) -> bool {
    let ForeignServerMatch { name, wrapper, option } = matches;
    if name.is_none() && wrapper.is_none() && option.is_empty() {
        return false;
    }
    name.as_ref().is_none_or(|name| *name == server.name)
        && wrapper.as_ref().is_none_or(|wrapper| *wrapper == server.wrapper)
        && option.iter().all(|(name, value)| {
            server
                .options
                .get(name)
                .is_some_and(|shown| shown.as_ref() == Some(value))
        })
}

/// The matchers of a rule in words.
fn describe(matches: &ForeignServerMatch) -> String {
    let ForeignServerMatch { name, wrapper, option } = matches;
    let name = name.iter().map(|name| format!("name {name:?}"));
    let wrapper = wrapper.iter().map(|wrapper| format!("wrapper {wrapper:?}"));
    // A value that somebody took for no secret may be one.
    let option = option.iter().map(|(name, value)| {
        let secret = is_secret(OptionOf::Server("postgres_fdw"), name, value);
        format!("option {name} = {:?}", if secret { MASK } else { value })
    });
    let parts: Vec<_> = name.chain(wrapper).chain(option).collect();
    if parts.is_empty() {
        "no matcher".into()
    } else {
        parts.join(", ")
    }
}

fn overlap(server: &ForeignServer, one: usize, other: usize) -> Refusal {
    Refusal::permanent(
        reasons::FOREIGN_SERVER_RULES_OVERLAP,
        format!(
            "foreignServers[{one}] and foreignServers[{other}] both select the foreign server {:?}",
            server.name
        ),
    )
    .object(format!("server {}", server.name))
    .hint("Narrow one of the two rules, so that each server has one.")
}

fn unused(servers: &[ForeignServer], rule: &ForeignServerRule, number: usize) -> Refusal {
    let known: Vec<_> = servers
        .iter()
        .map(|server| format!("{:?} ({})", server.name, server.wrapper))
        .collect();
    let known = if known.is_empty() {
        "none".into()
    } else {
        known.join(", ")
    };
    Refusal::permanent(
        reasons::FOREIGN_SERVER_RULE_UNUSED,
        format!(
            "foreignServers[{number}] ({}) selects no foreign server; the backup has {known}",
            describe(&rule.matches)
        ),
    )
    .hint("Correct the match or remove the rule. The value of a secret option cannot be matched.")
}

fn unmatched_refusal(left: &[String]) -> Refusal {
    Refusal::permanent(
        reasons::FOREIGN_SERVER_UNMATCHED,
        format!("no rule selects the foreign servers {}", left.join(", ")),
    )
    .hint(
        "Add a rule for each to foreignServers (`pgrescue foreign-servers` prints them ready to fill in), or set \
         unmatchedForeignServers to Keep or Drop.",
    )
}
