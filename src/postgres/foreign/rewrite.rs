//! Applies a decision to an archive's table of contents.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::NodeEnum;
use pg_query::protobuf::{RoleSpec, RoleSpecType};

use super::columns::change_column;
use super::decide::decide;
use super::dependents::take_along;
use super::error::ForeignError;
use super::inventory::{Found, Object, USER_MAPPING, describe, find, own_options_mut, subscription_names};
use super::request::{
    Changes, ForeignDecision, ForeignRewriteRequest, MappingDecision, ServerDecision, SubscriptionDecision,
};
use super::roles::map_roles;
use super::server::LocalUser;
use super::statement::{Definition, change_options};
use super::subscription::replace_connection;
use crate::api::status::{ForeignServerAction, ForeignServerChange};
use crate::plan::Refusal;
use crate::postgres::archive::{Text, Toc};
use crate::postgres::quote;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignRewrite {
    /// Every server before and after, for the status; secrets are masked.
    pub changes: Vec<ForeignServerChange>,
    /// The servers that the restore makes.
    pub servers: Vec<RestoredServer>,
}

/// A foreign server that the restore makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredServer {
    /// Its name.
    pub name: String,
    /// Its foreign data wrapper.
    pub wrapper: String,
    /// Whether a rule applied to it.
    pub rewritten: bool,
    /// Whom its mappings are for.
    pub users: Vec<LocalUser>,
}

/// Rewrites foreign servers, user mappings, foreign tables and subscriptions, and gives roles the place of others in
/// owners, grants and policies. Either all is done, or the archive is left as it was.
pub fn rewrite(toc: &mut Toc, request: &ForeignRewriteRequest<'_>) -> Result<ForeignRewrite, Refusal> {
    let found = find(toc)?;
    let decision = decide(&describe(&found), &subscription_names(&found), request)?;
    let mut rewritten = toc.clone();
    let dropped = take_along(toc, dropped_entries(&found, &decision))?;
    Application {
        toc: &mut rewritten,
        decision: &decision,
    }
    .apply(found, &dropped)?;
    rewritten.remove(|entry| dropped.contains(&entry.dump_id));
    map_roles(&mut rewritten, request.role_mapping)?;
    *toc = rewritten;
    Ok(ForeignRewrite {
        changes: decision.changes(),
        servers: decision
            .servers
            .iter()
            .filter(|server| server.action != ForeignServerAction::Dropped)
            .map(|server| RestoredServer {
                name: server.name.clone(),
                wrapper: server.wrapper.clone(),
                rewritten: server.action == ForeignServerAction::Rewritten,
                users: server
                    .mappings
                    .iter()
                    .filter_map(|mapping| mapping.to.clone())
                    .collect(),
            })
            .collect(),
    })
}

/// The entries that the decision itself leaves out.
fn dropped_entries(found: &[Found], decision: &ForeignDecision) -> BTreeSet<i32> {
    let server = |name: &str| decision.servers.iter().find(|server| server.name == *name);
    let drops = |name: &str| server(name).is_some_and(|server| server.action == ForeignServerAction::Dropped);
    let is_dropped = |found: &&Found| match &found.object {
        Object::Wrapper { .. } => false,
        Object::Server { name, .. } => drops(name),
        Object::ForeignTable { server, .. } => drops(server),
        Object::UserMapping { server: name, user } => {
            drops(name)
                || server(name)
                    .and_then(|server| mapping_of(server, user))
                    .is_some_and(|it| it.to.is_none())
        }
        Object::Subscription { name } => {
            matches!(decision.subscriptions.get(name), Some(SubscriptionDecision::Drop))
        }
    };
    found.iter().filter(is_dropped).map(|found| found.dump_id).collect()
}

fn mapping_of<'a>(server: &'a ServerDecision, user: &LocalUser) -> Option<&'a MappingDecision> {
    server
        .mappings
        .iter()
        .find(|mapping| mapping.from.as_ref() == Some(user))
}

struct Application<'a> {
    toc: &'a mut Toc,
    decision: &'a ForeignDecision,
}

impl Application<'_> {
    fn apply(&mut self, found: Vec<Found>, dropped: &BTreeSet<i32>) -> Result<(), ForeignError> {
        let mut servers = BTreeMap::new();
        for found in found {
            if dropped.contains(&found.dump_id) {
                continue;
            }
            // New mappings follow the last entry of their server.
            match &found.object {
                Object::Server { name, .. } | Object::UserMapping { server: name, .. } => {
                    servers.insert(name.clone(), found.dump_id);
                }
                Object::Wrapper { .. } | Object::ForeignTable { .. } | Object::Subscription { .. } => {}
            }
            self.change(found)?;
        }
        for server in &self.decision.servers {
            for mapping in server.mappings.iter().filter(|mapping| mapping.from.is_none()) {
                if let Some(after) = servers.get(&server.name) {
                    self.add_mapping(*after, &server.name, mapping)?;
                }
            }
        }
        Ok(())
    }

    /// Changes one entry, if the decision says so. What is kept stays byte for byte.
    fn change(&mut self, found: Found) -> Result<(), ForeignError> {
        let Found {
            dump_id,
            owner: _,
            object,
            mut definition,
        } = found;
        let changed = match &object {
            Object::Wrapper { name } => change_own(&mut definition, self.decision.wrappers.get(name))?,
            Object::Server { name, .. } => {
                let changes = self.server(name).map(|server| &server.options);
                change_own(&mut definition, changes)?
            }
            Object::UserMapping { server, user } => {
                let mapping = self.server(server).and_then(|server| mapping_of(server, user)).cloned();
                match mapping {
                    Some(mapping) => return self.change_mapping(dump_id, server, definition, &mapping),
                    None => false,
                }
            }
            Object::ForeignTable { server, schema, name } => {
                let tables = self.server(server).map(|server| &server.tables);
                let table = tables
                    .into_iter()
                    .flatten()
                    .find(|table| table.schema == *schema && table.name == *name);
                match table {
                    None => false,
                    Some(table) => {
                        change_own(&mut definition, Some(&table.options))?;
                        for (column, changes) in &table.columns {
                            definition.check_changes(changes)?;
                            change_column(&mut definition, column, changes)?;
                        }
                        true
                    }
                }
            }
            Object::Subscription { name } => match self.decision.subscriptions.get(name) {
                Some(SubscriptionDecision::Connect(connection)) => {
                    replace_connection(&mut definition, connection)?;
                    true
                }
                Some(SubscriptionDecision::Keep | SubscriptionDecision::Drop) | None => false,
            },
        };
        if changed {
            self.set_definition(dump_id, definition.to_sql()?);
        }
        Ok(())
    }

    fn server(&self, name: &str) -> Option<&ServerDecision> {
        self.decision.servers.iter().find(|server| server.name == *name)
    }

    fn set_definition(&mut self, dump_id: i32, sql: Text) {
        if let Some(entry) = self.toc.entries.iter_mut().find(|entry| entry.dump_id == dump_id) {
            entry.definition = Some(sql);
        }
    }

    fn change_mapping(
        &mut self,
        dump_id: i32,
        server: &str,
        mut definition: Definition,
        mapping: &MappingDecision,
    ) -> Result<(), ForeignError> {
        let renamed = mapping.to != mapping.from;
        if !renamed && mapping.options.is_none() {
            return Ok(());
        }
        set_mapping(&mut definition, mapping)?;
        self.set_definition(dump_id, definition.to_sql()?);
        if let Some(to) = mapping.to.as_ref().filter(|_| renamed)
            && let Some(entry) = self.toc.entries.iter_mut().find(|entry| entry.dump_id == dump_id)
        {
            entry.tag = Some(tag(to, server).into());
            entry.drop_statement = Some(drop_statement(to, server).into());
        }
        Ok(())
    }

    fn add_mapping(&mut self, after: i32, server: &str, mapping: &MappingDecision) -> Result<(), ForeignError> {
        let Some(to) = &mapping.to else {
            return Ok(());
        };
        let sql = format!("CREATE USER MAPPING FOR PUBLIC SERVER {};\n", quote::identifier(server));
        let tag = tag(to, server);
        let Some(dump_id) = self.toc.add_after(after, USER_MAPPING, &tag, &sql) else {
            return Ok(());
        };
        let Some(entry) = self.toc.entries.iter_mut().find(|entry| entry.dump_id == dump_id) else {
            return Ok(());
        };
        entry.drop_statement = Some(drop_statement(to, server).into());
        let mut definition = super::statement::Dialect::of(self.toc).parse_new(&sql, &tag)?;
        set_mapping(&mut definition, mapping)?;
        self.set_definition(dump_id, definition.to_sql()?);
        Ok(())
    }
}

/// Applies changes to the options of the object itself; returns whether there were any.
fn change_own(definition: &mut Definition, changes: Option<&Changes>) -> Result<bool, ForeignError> {
    let Some(changes) = changes.filter(|changes| !changes.is_empty()) else {
        return Ok(false);
    };
    definition.check_changes(changes)?;
    let unexpected = definition.unexpected();
    change_options(own_options_mut(definition).ok_or(unexpected)?, changes);
    Ok(true)
}

/// Gives a mapping its user and, where they are replaced, all its options.
fn set_mapping(definition: &mut Definition, mapping: &MappingDecision) -> Result<(), ForeignError> {
    if let Some(name) = mapping.to.as_ref().and_then(LocalUser::role) {
        definition.check_encoding(name)?;
    }
    let unexpected = definition.unexpected();
    let Some(NodeEnum::CreateUserMappingStmt(create)) = definition.statements_mut().next() else {
        return Err(unexpected);
    };
    create.user = mapping.to.as_ref().map(role_spec);
    if let Some(options) = &mapping.options {
        create.options.clear();
        let changes = Changes {
            set: options.clone(),
            drop: BTreeSet::new(),
        };
        change_options(&mut create.options, &changes);
        definition.check_changes(&changes)?;
    }
    Ok(())
}

fn role_spec(user: &LocalUser) -> RoleSpec {
    let (kind, name) = match user {
        LocalUser::Public => (RoleSpecType::RolespecPublic, ""),
        LocalUser::CurrentUser => (RoleSpecType::RolespecCurrentUser, ""),
        LocalUser::Role(name) => (RoleSpecType::RolespecCstring, name.as_str()),
    };
    RoleSpec {
        roletype: kind as i32,
        rolename: name.to_owned(),
        location: 0,
    }
}

/// As `pg_dump` names the entry (`dumpUserMappings`).
fn tag(user: &LocalUser, server: &str) -> String {
    let user = match user {
        LocalUser::Public => "public",
        LocalUser::CurrentUser => "CURRENT_USER",
        LocalUser::Role(name) => name,
    };
    format!("USER MAPPING {user} SERVER {server}")
}

fn drop_statement(user: &LocalUser, server: &str) -> String {
    let user = match user {
        LocalUser::Public => "PUBLIC".to_owned(),
        LocalUser::CurrentUser => "CURRENT_USER".to_owned(),
        LocalUser::Role(name) => quote::identifier(name),
    };
    format!(
        "DROP USER MAPPING IF EXISTS FOR {user} SERVER {};\n",
        quote::identifier(server)
    )
}
