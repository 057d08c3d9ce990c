//! Findings and decision: everything before the first change.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::attempt::Attempt;
use super::count_rows::Counts;
use super::database_state;
use super::definitions::{self, Definitions, ForeignInputs};
use super::guard::Guard;
use super::mark;
use super::passwords;
use super::source::Source;
use super::target::{Target, find_server};
use super::undo;
use crate::agent::Context;
use crate::api::conditions::PREFLIGHT_PASSED;
use crate::api::connection::KeyRef;
use crate::api::reasons;
use crate::api::restore::Globals;
use crate::api::status::Resolved;
use crate::plan::Refusal;
use crate::plan::references::{CONNINFO_KEY, ReferencedNames};
use crate::plan::restore::RestorePlan;
use crate::plan::restore_findings::{DatabaseState, Findings};
use crate::plan::restore_steps::{Decision, Steps, decide};
use crate::postgres::connection::{Session, parse_conninfo};
use crate::postgres::foreign::{OptionOf, is_secret};
use crate::postgres::pooler;

/// What follows from the findings.
pub(super) enum Prepared<'a> {
    /// The target remembers the request.
    AlreadyApplied { at: String, database: String },
    /// A dry run ends here.
    Shown(Box<Steps>),
    /// The restore can begin.
    Attempt(Box<Attempt<'a>>),
}

/// Secrets that the restore uses.
struct Secrets {
    of_rules: BTreeMap<String, BTreeMap<String, SecretString>>,
    of_subscriptions: BTreeMap<String, SecretString>,
    /// What no message may show.
    masked: Vec<SecretString>,
}

/// Finds out and decides. Nothing is changed, but that sessions of this run's earlier attempts are ended.
pub(super) async fn prepare<'a>(plan: &'a RestorePlan, context: &'a Context) -> Result<Prepared<'a>, Refusal> {
    let name = mark::new_attempt();
    // A request that was applied stays applied when its backup is gone.
    if let Some(database) = plan.database.as_ref().or(plan.source.database.as_ref()) {
        let (target, session) = Target::open(plan, context, database, &name).await?;
        if let DatabaseState::Applied { at, .. } = database_state::find(&session, &target, plan).await? {
            return Ok(applied(at, database));
        }
    }
    let source = Source::find(&plan.source, context).await?;
    let database = plan.database.clone().unwrap_or_else(|| source.database.clone());
    let (target, session) = Target::open(plan, context, &database, &name).await?;
    let pooled = pooler::detect(&session).await?.is_some();
    // Behind a pooler a lock holds nothing; the decision refuses it.
    let guard = if plan.dry_run || pooled {
        None
    } else {
        Some(Guard::take(&target, &plan.run, &name).await?)
    };
    let secrets = read_secrets(plan, context).await?;
    let tools = context
        .client_tools
        .for_restore(source.manifest.tools.client_major, session.server_major())
        .cloned()
        .map_err(Refusal::from);
    let client = tools.clone().map(|tools| tools.version);
    let (findings, definitions) = find(plan, &source, &target, &session, client, pooled, &secrets).await?;
    let steps = match decide(plan, &findings)? {
        Decision::AlreadyApplied { at } => return Ok(applied(at, &database)),
        Decision::Restore(steps) => *steps,
    };
    report(context, &source, &steps);
    let Some(guard) = guard else {
        return Ok(Prepared::Shown(Box::new(steps)));
    };
    let mut definitions = definitions;
    definitions.leave_tablespaces(&steps.missing_tablespaces);
    Ok(Prepared::Attempt(Box::new(Attempt {
        plan,
        context,
        name,
        source,
        target,
        definitions,
        steps,
        tools: tools?,
        secrets: secrets.masked,
        guard,
        stage: None,
        built_indexes: BTreeSet::new(),
        counts: Counts::new(),
    })))
}

fn applied<'a>(at: String, database: &str) -> Prepared<'a> {
    Prepared::AlreadyApplied {
        at,
        database: database.to_owned(),
    }
}

async fn find(
    plan: &RestorePlan,
    source: &Source,
    target: &Target,
    session: &Session,
    client: Result<String, Refusal>,
    pooled: bool,
    secrets: &Secrets,
) -> Result<(Findings, Definitions), Refusal> {
    let snapshot = source.findings()?;
    let mut server = find_server(session, client, pooled, &snapshot.locale).await?;
    // Roles that an earlier attempt of this run made are made again, as far as the decision goes.
    for role in undo::marked_roles(session, &plan.run).await? {
        server.roles.remove(&role);
    }
    let globals = match plan.globals {
        Globals::Missing => source.globals().await?.unwrap_or_default(),
        Globals::Skip => String::new(),
    };
    let passwords: BTreeSet<_> = passwords::verifiers(&globals).into_keys().collect();
    let known_roles = definitions::known_roles(&source.manifest.roles, &passwords, plan);
    let mut target_roles: BTreeSet<_> = server.roles.keys().cloned().collect();
    if plan.globals == Globals::Missing {
        target_roles.extend(known_roles.keys().cloned());
    }
    let inputs = ForeignInputs {
        secrets: &secrets.of_rules,
        subscription_connections: &secrets.of_subscriptions,
        target_roles: &target_roles,
    };
    let database = source.manifest_database()?;
    let mut definitions =
        Definitions::prepare(source.toc.clone(), plan, database, &target.database, &inputs, session).await?;
    definitions.needs.known_roles = known_roles;
    let findings = Findings {
        snapshot,
        server,
        database: target.database.clone(),
        state: database_state::find(session, target, plan).await?,
        needs: definitions.needs.clone(),
        foreign: definitions.foreign.clone(),
        warnings: definitions.warnings.clone(),
    };
    Ok((findings, definitions))
}

fn report(context: &Context, source: &Source, steps: &Steps) {
    let reporter = &context.reporter;
    reporter.resolved(Resolved {
        snapshot: Some(steps.snapshot.clone()),
        databases: vec![steps.database.clone()],
        server_version: Some(steps.server_version.clone()),
        client_version: Some(steps.client_version.clone()),
        location: Some(source.location()),
        foreign_servers: steps.foreign_servers.clone(),
    });
    for warning in &steps.warnings {
        reporter.warn(warning);
    }
    let message = format!("Nothing stands against restoring into {:?}.", steps.database);
    reporter.condition(PREFLIGHT_PASSED, Some(true), reasons::SUCCEEDED, message);
}

async fn read_secrets(plan: &RestorePlan, context: &Context) -> Result<Secrets, Refusal> {
    let mut of_rules = BTreeMap::new();
    let mut masked = Vec::new();
    for name in ReferencedNames::of_rules(&plan.foreign_servers).secrets {
        let secret = context.references.secret(&name).await?;
        for (key, value) in &secret {
            use secrecy::ExposeSecret as _;
            if !value.expose_secret().is_empty() && is_secret(OptionOf::UserMapping, key, value.expose_secret()) {
                masked.push(value.clone());
            }
        }
        of_rules.insert(name, secret);
    }
    let mut of_subscriptions = BTreeMap::new();
    for (subscription, secret) in &plan.subscription_secrets {
        let key = KeyRef {
            name: secret.clone(),
            key: CONNINFO_KEY.into(),
        };
        let connection = context.references.secret_key(&key).await?;
        masked.extend(secrets_of_connection(&connection, subscription, &key)?);
        masked.push(connection.clone());
        of_subscriptions.insert(subscription.clone(), connection);
    }
    Ok(Secrets {
        of_rules,
        of_subscriptions,
        masked,
    })
}

/// The secrets in a subscription's connection string. One that cannot be read is refused here: PostgreSQL would quote
/// the part that it stumbles over, which may be a part of the password.
fn secrets_of_connection(
    connection: &SecretString,
    subscription: &str,
    key: &KeyRef,
) -> Result<Vec<SecretString>, Refusal> {
    use secrecy::ExposeSecret as _;
    let KeyRef { name, key } = key;
    let parameters = parse_conninfo(connection.expose_secret()).map_err(|error| {
        Refusal::permanent(
            reasons::INVALID_SPEC,
            format!(
                "The key {key:?} of the Secret {name:?} is no connection string for the subscription {subscription:?}: {error}."
            ),
        )
        .object(format!("Secret/{name}"))
        .hint("Write it as libpq reads it: a URI, or keyword=value pairs with values in single quotes where they hold spaces.")
    })?;
    let secret = parameters
        .into_iter()
        .filter(|(name, value)| !value.is_empty() && is_secret(OptionOf::Connection, name, value));
    Ok(secret.map(|(_, value)| SecretString::from(value)).collect())
}
