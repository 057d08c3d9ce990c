//! Decides what becomes of foreign servers and subscriptions. Pure: no archive, no connection, no parser.

use std::collections::{BTreeMap, BTreeSet};

use super::mappings::decide_mappings;
use super::masking::{after, masked};
use super::needed::refuse_missing_credentials;
use super::options::resolve;
use super::request::{
    Changes, ForeignDecision, ForeignRewriteRequest, ServerDecision, SubscriptionDecision, TableDecision,
};
use super::rules::assign;
use super::server::{ForeignServer, LocalUser};
use super::stripped::with_stripped;
use crate::api::foreign_servers::{ForeignServerRule, ForeignTableRule, UnmatchedForeignServers};
use crate::api::reasons;
use crate::api::status::{ForeignServerAction, ForeignServerChange};
use crate::plan::Refusal;

/// Decides what becomes of every server and every subscription, or refuses with the reason. The servers may come from
/// an archive or from a manifest; with the same servers the decision is the same.
pub fn decide(
    servers: &[ForeignServer],
    subscriptions: &[String],
    request: &ForeignRewriteRequest<'_>,
) -> Result<ForeignDecision, Refusal> {
    let servers = with_stripped(servers, request.stripped);
    let assigned = assign(&servers, request.rules, request.unmatched)?;
    let mut decision = ForeignDecision::default();
    for (server, rule) in servers.iter().zip(&assigned) {
        decision.servers.push(match rule {
            Some(rule) => decide_server(server, Some(rule), request)?,
            None if request.unmatched == UnmatchedForeignServers::Drop => dropped(server),
            None => decide_server(server, None, request)?,
        });
    }
    decision.wrappers = decide_wrappers(&servers, &assigned, request)?;
    refuse_unused_parts(&servers, &assigned, request.rules)?;
    refuse_missing_roles(&decision, request.target_roles)?;
    decision.subscriptions = decide_subscriptions(subscriptions, request)?;
    refuse_missing_credentials(&decision, request.stripped)?;
    Ok(decision)
}

fn decide_server(
    server: &ForeignServer,
    rule: Option<&ForeignServerRule>,
    request: &ForeignRewriteRequest<'_>,
) -> Result<ServerDecision, Refusal> {
    let object = format!("server {}", server.name);
    let option_rule = rule.and_then(|rule| rule.options.as_ref());
    let options = resolve(option_rule, request, &object)?;
    let mapping_rules = rule.map_or(&[][..], |rule| &rule.user_mappings);
    let (mappings, sentences) = decide_mappings(server, mapping_rules, request)?;
    let table_rules = rule.map_or(&[][..], |rule| &rule.foreign_tables);
    let tables = decide_tables(server, table_rules, request)?;
    let action = if rule.is_some() {
        ForeignServerAction::Rewritten
    } else {
        ForeignServerAction::Kept
    };
    Ok(ServerDecision {
        name: server.name.clone(),
        wrapper: server.wrapper.clone(),
        action,
        change: ForeignServerChange {
            name: server.name.clone(),
            wrapper: server.wrapper.clone(),
            action,
            before: masked(&server.options),
            after: masked(&after(&server.options, &options, option_rule, &server.wrapper)),
            user_mappings: sentences,
        },
        options,
        mappings,
        tables,
    })
}

fn dropped(server: &ForeignServer) -> ServerDecision {
    ServerDecision {
        name: server.name.clone(),
        wrapper: server.wrapper.clone(),
        action: ForeignServerAction::Dropped,
        options: Changes::default(),
        mappings: Vec::new(),
        tables: Vec::new(),
        change: ForeignServerChange {
            name: server.name.clone(),
            wrapper: server.wrapper.clone(),
            action: ForeignServerAction::Dropped,
            before: masked(&server.options),
            after: BTreeMap::new(),
            user_mappings: server
                .user_mappings
                .iter()
                .map(|mapping| format!("{}: dropped", mapping.user))
                .collect(),
        },
    }
}

fn decide_tables(
    server: &ForeignServer,
    rules: &[ForeignTableRule],
    request: &ForeignRewriteRequest<'_>,
) -> Result<Vec<TableDecision>, Refusal> {
    let mut tables = Vec::new();
    for table in &server.foreign_tables {
        let object = format!("foreign table {}.{}", table.schema, table.name);
        let mut decision = TableDecision {
            schema: table.schema.clone(),
            name: table.name.clone(),
            options: Changes::default(),
            columns: BTreeMap::new(),
        };
        for rule in rules.iter().filter(|rule| rule.selects(&table.schema, &table.name)) {
            let changes = resolve(Some(&rule.options), request, &object)?;
            match &rule.column {
                None => decision.options.add(changes, &object)?,
                Some(column) => decision
                    .columns
                    .entry(column.clone())
                    .or_default()
                    .add(changes, &object)?,
            }
        }
        if !decision.options.is_empty() || !decision.columns.is_empty() {
            tables.push(decision);
        }
    }
    Ok(tables)
}

impl ForeignTableRule {
    fn selects(&self, schema: &str, name: &str) -> bool {
        self.schema.as_ref().is_none_or(|wanted| wanted == schema)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

fn decide_wrappers(
    servers: &[ForeignServer],
    assigned: &[Option<&ForeignServerRule>],
    request: &ForeignRewriteRequest<'_>,
) -> Result<BTreeMap<String, Changes>, Refusal> {
    let mut asked = BTreeMap::new();
    for (server, rule) in servers.iter().zip(assigned) {
        let Some(changes) = rule.and_then(|rule| rule.wrapper_options.as_ref()) else {
            continue;
        };
        if asked
            .insert(&server.wrapper, changes)
            .is_some_and(|other| other != changes)
        {
            return Err(Refusal::permanent(
                reasons::INVALID_SPEC,
                format!(
                    "two rules change the options of the foreign data wrapper {:?} in different ways",
                    server.wrapper
                ),
            )
            .object(format!("foreign data wrapper {}", server.wrapper))
            .hint("Give wrapperOptions in one rule, or the same in both."));
        }
    }
    asked
        .into_iter()
        .map(|(wrapper, changes)| {
            let object = format!("foreign data wrapper {wrapper}");
            Ok((wrapper.clone(), resolve(Some(changes), request, &object)?))
        })
        .collect()
}

/// A part of a rule that finds nothing in any of the rule's servers is a mistake in the rule.
fn refuse_unused_parts(
    servers: &[ForeignServer],
    assigned: &[Option<&ForeignServerRule>],
    rules: &[ForeignServerRule],
) -> Result<(), Refusal> {
    for (number, rule) in rules.iter().enumerate() {
        let of_rule = || {
            let pairs = servers.iter().zip(assigned);
            pairs.filter_map(|(server, assigned)| assigned.is_some_and(|it| std::ptr::eq(it, rule)).then_some(server))
        };
        for (part, mapping) in rule.user_mappings.iter().enumerate() {
            let user = LocalUser::from(mapping.local_user.as_str());
            let exists = of_rule()
                .flat_map(|server| &server.user_mappings)
                .any(|mapping| mapping.user == user);
            if !exists && mapping.secret_ref.is_none() {
                return Err(unused_part(
                    &format!("foreignServers[{number}].userMappings[{part}]"),
                    &format!("no user mapping of {user}"),
                ));
            }
        }
        for (part, table) in rule.foreign_tables.iter().enumerate() {
            let exists = of_rule()
                .flat_map(|server| &server.foreign_tables)
                .any(|found| table.selects(&found.schema, &found.name));
            if !exists {
                return Err(unused_part(
                    &format!("foreignServers[{number}].foreignTables[{part}]"),
                    "no such foreign table",
                ));
            }
        }
    }
    Ok(())
}

fn unused_part(part: &str, what: &str) -> Refusal {
    Refusal::permanent(
        reasons::FOREIGN_SERVER_RULE_UNUSED,
        format!("{part} applies to nothing: the servers of the rule have {what}"),
    )
    .hint("Correct the name as it is in the backup, or remove the entry.")
}

fn refuse_missing_roles(decision: &ForeignDecision, roles: &BTreeSet<String>) -> Result<(), Refusal> {
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for server in &decision.servers {
        for role in server.mappings.iter().filter_map(|mapping| mapping.to.as_ref()?.role()) {
            if !roles.contains(role) {
                missing.entry(role).or_default().push(format!("{:?}", server.name));
            }
        }
    }
    let Some(first) = missing.keys().next().map(|role| (*role).to_owned()) else {
        return Ok(());
    };
    let list: Vec<_> = missing
        .iter()
        .map(|(role, servers)| format!("role {role:?} (foreign server {})", servers.join(", ")))
        .collect();
    Err(Refusal::permanent(
        reasons::ROLE_MISSING,
        format!("user mappings are for roles that do not exist on the target: {}", list.join("; ")),
    )
    .object(format!("role {first}"))
    .hint(
        "Create the roles, restore them with globals: Missing, map them with roleMapping, or give the mapping a renameTo \
         or drop: true.",
    ))
}

fn decide_subscriptions(
    subscriptions: &[String],
    request: &ForeignRewriteRequest<'_>,
) -> Result<BTreeMap<String, SubscriptionDecision>, Refusal> {
    let mut given = request.subscription_connections.clone();
    let decisions = subscriptions
        .iter()
        .map(|name| {
            let decision = match given.remove(name) {
                Some(connection) => SubscriptionDecision::Connect(connection),
                None if request.drop_subscriptions => SubscriptionDecision::Drop,
                None => SubscriptionDecision::Keep,
            };
            (name.clone(), decision)
        })
        .collect();
    match given.keys().next() {
        None => Ok(decisions),
        Some(name) => Err(Refusal::permanent(
            reasons::INVALID_SPEC,
            format!("subscriptions.connections names {name:?}, and the backup has no such subscription"),
        )
        .object(format!("subscription {name}"))
        .hint("Correct the name or remove the entry.")),
    }
}
