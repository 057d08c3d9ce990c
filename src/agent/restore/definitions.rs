//! The archive's table of contents as the target gets it: without what the agent does itself, with other roles where
//! `roleMapping` says so. The stored archive stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::ledger;
use super::statements::{StatementError, Statements};
use crate::api::reasons;
use crate::plan::Refusal;
use crate::plan::restore::RestorePlan;
use crate::plan::restore_findings::{ExtensionNeed, Foreign, KnownRole, Needs, SubscriptionAction};
use crate::postgres::archive::{Text, Toc, TocEntry};
use crate::postgres::connection::Session;
use crate::postgres::foreign::{self, ForeignRewriteRequest};
use crate::store::manifest::{DatabaseManifest, RoleManifest};

/// Kinds of entries whose statements name roles.
const NAMING_ROLES: [&str; 3] = ["ACL", "DEFAULT ACL", "POLICY"];

/// What the archive says, prepared for the target.
pub(super) struct Definitions {
    /// The table of contents for `pg_restore`.
    pub toc: Toc,
    /// Entries that fail on managed servers although nothing is lost: the agent runs them itself.
    pub set_aside: Vec<SetAside>,
    /// Settings of the database: `ALTER DATABASE … SET`, `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<String>,
    /// Comment, grants and connection limit of the database.
    pub properties: Vec<String>,
    /// Owner of the database; `None` leaves it to the restoring role.
    pub owner: Option<String>,
    /// What the archive needs from the target.
    pub needs: Needs,
    /// What the rules make of foreign servers and subscriptions, or why they cannot.
    pub foreign: Result<Foreign, Vec<Refusal>>,
    /// What is left out.
    pub warnings: Vec<String>,
}

/// What the rewrite of foreign servers and subscriptions takes besides the plan.
pub(super) struct ForeignInputs<'a> {
    /// Keys and values of the Secrets that the rules name.
    pub secrets: &'a BTreeMap<String, BTreeMap<String, SecretString>>,
    /// Connection strings by subscription.
    pub subscription_connections: &'a BTreeMap<String, SecretString>,
    /// Roles that exist on the target, or will.
    pub target_roles: &'a BTreeSet<String>,
}

/// An entry that the agent runs itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetAside {
    /// The entry in a few words.
    pub label: String,
    /// Its statements.
    pub sql: String,
    /// Whether later entries need it.
    pub first: bool,
}

impl Definitions {
    /// Prepares the table of contents. `session` decodes texts of archives that are not in UTF-8.
    pub(super) async fn prepare(
        mut toc: Toc,
        plan: &RestorePlan,
        database: &DatabaseManifest,
        target_database: &str,
        inputs: &ForeignInputs<'_>,
        session: &Session,
    ) -> Result<Self, Refusal> {
        ledger::refuse_another(database)?;
        toc.remove(is_ledger);
        let foreign = rewrite_foreign(&mut toc, plan, database, inputs)?;
        let decoder = Decoder { session, toc: &toc };
        let mut set_aside = Vec::new();
        let mut aside = BTreeSet::new();
        let mut settings = Vec::new();
        let mut properties = Vec::new();
        let mut needs = Needs::default();
        let mut owner = None;
        let mut warnings = Vec::new();
        for entry in &toc.entries {
            if let Some(part) = SetAside::of(entry, plan, &decoder).await? {
                aside.insert(entry.dump_id);
                set_aside.push(part);
            } else if entry.description == "DATABASE" {
                owner = text(entry.owner.as_ref()).filter(|owner| !owner.is_empty() && !plan.no_owner);
            } else if is_of_database(entry) {
                if entry.description == "ACL" && plan.no_privileges {
                    continue;
                }
                let sql = decoder.definition(entry).await?;
                let mut statements = Statements::parse(&entry.label(), &sql, toc.standard_conforming_strings())?;
                statements.map_roles(&plan.role_mapping);
                statements.rename_database(target_database);
                statements.keep_properties();
                if plan.no_privileges {
                    for role in statements.drop_settings_of_others(inputs.target_roles) {
                        warnings.push(format!(
                            "Settings of the role {role:?} in the database were left out: the target does not have it."
                        ));
                    }
                } else {
                    statements.visit_roles(&mut |role| {
                        needs.roles.entry(role.clone()).or_insert_with(|| entry.label());
                    });
                }
                if statements.sets_session() {
                    needs.other_grantors.push(entry.label());
                }
                let (set, rest) = statements.into_settings_and_rest()?;
                settings.extend(set);
                properties.extend(rest);
            }
        }
        toc.remove(|entry| aside.contains(&entry.dump_id));
        toc.attach_indexes_in_turn();
        add_needs(&mut needs, &toc, plan, database)?;
        if let Some(owner) = &owner {
            needs
                .owners
                .entry(owner.clone())
                .or_insert_with(|| format!("DATABASE {target_database}"));
        }
        Ok(Self {
            toc,
            set_aside,
            settings,
            properties,
            owner,
            needs,
            foreign,
            warnings,
        })
    }

    /// Moves what stands in a tablespace that the target does not have to the default one.
    pub(super) fn leave_tablespaces(&mut self, missing: &[String]) {
        for entry in &mut self.toc.entries {
            let tablespace = text(entry.tablespace.as_ref());
            if tablespace.is_some_and(|tablespace| missing.contains(&tablespace)) {
                entry.tablespace = Some(Text::default());
            }
        }
    }
}

/// Rewrites foreign servers, user mappings and subscriptions, and gives roles the place of others. Where the rules do
/// not fit, the roles alone change, so that everything else can still be looked at.
fn rewrite_foreign(
    toc: &mut Toc,
    plan: &RestorePlan,
    database: &DatabaseManifest,
    inputs: &ForeignInputs<'_>,
) -> Result<Result<Foreign, Vec<Refusal>>, Refusal> {
    let subscriptions = foreign::subscriptions(toc)?
        .into_iter()
        .map(|name| {
            let action = match inputs.subscription_connections.contains_key(&name) {
                true => SubscriptionAction::Rewritten,
                false if plan.drop_subscriptions => SubscriptionAction::Dropped,
                false => SubscriptionAction::Kept,
            };
            (name, action)
        })
        .collect();
    let request = ForeignRewriteRequest {
        rules: &plan.foreign_servers,
        unmatched: plan.unmatched_foreign_servers,
        secrets: inputs.secrets,
        stripped: &database.stripped_credentials,
        role_mapping: &plan.role_mapping,
        target_roles: inputs.target_roles,
        drop_subscriptions: plan.drop_subscriptions,
        subscription_connections: inputs.subscription_connections,
    };
    match foreign::rewrite(toc, &request) {
        Ok(rewrite) => Ok(Ok(Foreign {
            servers: rewrite.changes,
            subscriptions,
        })),
        Err(refusal) => {
            foreign::map_roles(toc, &plan.role_mapping)?;
            Ok(Err(vec![refusal]))
        }
    }
}

/// Roles of the backup that `globals: Missing` can make.
pub(super) fn known_roles(
    roles: &[RoleManifest],
    passwords: &BTreeSet<String>,
    plan: &RestorePlan,
) -> BTreeMap<String, KnownRole> {
    roles
        .iter()
        .filter(|role| !role.built_in && !role.name.starts_with("pg_") && !plan.role_mapping.contains_key(&role.name))
        .map(|role| {
            let privileged = [
                ("SUPERUSER", role.superuser),
                ("REPLICATION", role.replication),
                ("BYPASSRLS", role.bypass_row_level_security),
            ];
            let known = KnownRole {
                privileged: privileged
                    .into_iter()
                    .filter(|(_, has)| *has)
                    .map(|(name, _)| name.to_owned())
                    .collect(),
                password: passwords.contains(&role.name),
            };
            (role.name.clone(), known)
        })
        .collect()
}

fn add_needs(needs: &mut Needs, toc: &Toc, plan: &RestorePlan, database: &DatabaseManifest) -> Result<(), Refusal> {
    let mut tablespaces = BTreeSet::new();
    // A table of contents with one entry at a time, and the settings that say how its text is read.
    let mut one = toc.clone();
    one.entries
        .retain(|entry| entry.description == "ENCODING" || entry.description == "STDSTRINGS");
    let frame = one.entries.len();
    for entry in &toc.entries {
        if is_of_database(entry) || entry.description == "DATABASE" {
            continue;
        }
        if !plan.no_owner
            && let Some(owner) = text(entry.owner.as_ref()).filter(|owner| !owner.is_empty())
        {
            needs.owners.entry(owner).or_insert_with(|| entry.label());
        }
        tablespaces.extend(text(entry.tablespace.as_ref()).filter(|name| !name.is_empty()));
        if entry.description == "EXTENSION"
            && let Some(name) = text(entry.tag.as_ref())
        {
            let source = database.extensions.iter().find(|extension| extension.name == name);
            let need = ExtensionNeed {
                schema: source.map(|source| source.schema.clone()),
                version: source.map(|source| source.version.clone()),
            };
            needs.extensions.insert(name, need);
        }
        let names_roles = NAMING_ROLES.iter().any(|kind| entry.description == *kind);
        if names_roles && !(plan.no_privileges && entry.description != "POLICY") {
            one.entries.truncate(frame);
            one.entries.push(TocEntry {
                owner: None,
                ..entry.clone()
            });
            let roles = foreign::named_roles(&one)?;
            for role in roles {
                needs.roles.entry(role).or_insert_with(|| entry.label());
            }
            let sql = entry.definition.as_ref().map(Text::lossy).unwrap_or_default();
            if Statements::parse(&entry.label(), &sql, toc.standard_conforming_strings())?.sets_session() {
                needs.other_grantors.push(entry.label());
            }
        }
    }
    needs.tablespaces = tablespaces.into_iter().collect();
    Ok(())
}

impl SetAside {
    async fn of(entry: &TocEntry, plan: &RestorePlan, decoder: &Decoder<'_>) -> Result<Option<Self>, Refusal> {
        let tag = text(entry.tag.as_ref()).unwrap_or_default();
        let part = |sql: String, first| {
            Some(Self {
                label: entry.label(),
                sql,
                first,
            })
        };
        Ok(match entry.description.lossy().as_ref() {
            "SCHEMA" if tag == "public" => part(public_schema(entry, plan), true),
            "COMMENT" if tag.starts_with("EXTENSION ") || tag == "SCHEMA public" => {
                part(decoder.definition(entry).await?, false)
            }
            "ACL" if tag == "SCHEMA public" && !plan.no_privileges => part(decoder.definition(entry).await?, false),
            _ => None,
        })
    }
}

fn public_schema(entry: &TocEntry, plan: &RestorePlan) -> String {
    use crate::postgres::quote::identifier;
    let create = "CREATE SCHEMA IF NOT EXISTS public";
    match text(entry.owner.as_ref()).filter(|owner| !owner.is_empty() && !plan.no_owner) {
        Some(owner) => format!("{create}; ALTER SCHEMA public OWNER TO {}", identifier(&owner)),
        None => create.to_owned(),
    }
}

/// Entries about the database itself, which pg_restore leaves out unless it creates the database.
fn is_of_database(entry: &TocEntry) -> bool {
    let of_database = text(entry.tag.as_ref()).is_some_and(|tag| tag.starts_with("DATABASE "));
    match entry.description.lossy().as_ref() {
        "DATABASE PROPERTIES" => true,
        "COMMENT" | "ACL" | "SECURITY LABEL" => of_database,
        _ => false,
    }
}

/// The ledger of a source that was itself restored by pgrescue. The target has its own.
fn is_ledger(entry: &TocEntry) -> bool {
    let tag = text(entry.tag.as_ref()).unwrap_or_default();
    if entry.schema.as_ref().is_some_and(|schema| *schema == *ledger::SCHEMA) {
        let names = [
            tag.as_str(),
            tag.trim_start_matches("TABLE "),
            tag.trim_start_matches("COLUMN "),
        ];
        return names.iter().any(|name| {
            // "runs", "runs runs_pkey", "runs.column"
            let table = name.split([' ', '.']).next().unwrap_or_default();
            ledger::is_own(ledger::SCHEMA, table)
        });
    }
    let schema = ledger::SCHEMA;
    match entry.description.lossy().as_ref() {
        "SCHEMA" => tag == schema,
        "COMMENT" | "ACL" => tag == format!("SCHEMA {schema}"),
        _ => false,
    }
}

/// Reads texts of the archive, which are in the archive's encoding.
struct Decoder<'a> {
    session: &'a Session,
    toc: &'a Toc,
}

impl Decoder<'_> {
    async fn definition(&self, entry: &TocEntry) -> Result<String, Refusal> {
        let Some(definition) = &entry.definition else {
            return Ok(String::new());
        };
        if let Some(sql) = definition.to_str() {
            return Ok(sql.to_owned());
        }
        let encoding = self.toc.encoding().unwrap_or("UTF8");
        let sql = "SELECT convert_from($1::bytea, $2::text::name)";
        let row = self
            .session
            .query_one(sql, &[&definition.as_bytes(), &encoding])
            .await
            .map_err(|error| {
                self.session
                    .refusal(&error, "reading a text of the archive", Some(&entry.label()))
            })?;
        Ok(row.get(0))
    }
}

fn text(text: Option<&Text>) -> Option<String> {
    text.map(|text| text.lossy().into_owned())
}

fn unreadable(error: &dyn std::error::Error) -> Refusal {
    Refusal::permanent(
        reasons::OBJECT_CHANGED,
        format!("The archive cannot be prepared: {error}."),
    )
    .hint("Please report this with the statement that it names, without its secrets.")
}

impl From<StatementError> for Refusal {
    fn from(error: StatementError) -> Self {
        unreadable(&error)
    }
}
