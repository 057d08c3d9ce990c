//! Archives with foreign servers, made as `pg_dump` makes them, and what becomes of them.

mod archives;
mod decisions;
mod dependents;
mod properties;
mod rewriting;
mod stripping;

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret, SecretString};

use super::inventory::inventory;
use super::request::ForeignRewriteRequest;
use super::server::ForeignServer;
use super::statement::{Dialect, option};
use super::stripped::StrippedCredential;
use crate::api::foreign_servers::{ForeignServerRule, UnmatchedForeignServers};
use crate::postgres::archive::{Text, Toc};

/// The foreign servers of an archive of which nothing was stripped.
fn servers(toc: &Toc) -> Vec<ForeignServer> {
    inventory(toc, &[]).unwrap().servers
}

/// Everything that a request borrows.
#[derive(Default)]
struct Asked {
    rules: Vec<ForeignServerRule>,
    unmatched: UnmatchedForeignServers,
    secrets: BTreeMap<String, BTreeMap<String, SecretString>>,
    stripped: Vec<StrippedCredential>,
    role_mapping: BTreeMap<String, String>,
    target_roles: BTreeSet<String>,
    drop_subscriptions: bool,
    subscription_connections: BTreeMap<String, SecretString>,
}

impl Asked {
    /// The rules of a manifest.
    fn rules(yaml: &str) -> Self {
        Self {
            rules: serde_saphyr::from_str(yaml).unwrap(),
            ..Self::default()
        }
    }

    fn secret(mut self, name: &str, pairs: &[(&str, &str)]) -> Self {
        let keys = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), SecretString::from(*value)));
        self.secrets.insert(name.into(), keys.collect());
        self
    }

    fn roles(mut self, roles: &[&str]) -> Self {
        self.target_roles.extend(roles.iter().map(|role| (*role).to_owned()));
        self
    }

    fn unmatched(mut self, unmatched: UnmatchedForeignServers) -> Self {
        self.unmatched = unmatched;
        self
    }

    fn request(&self) -> ForeignRewriteRequest<'_> {
        ForeignRewriteRequest {
            rules: &self.rules,
            unmatched: self.unmatched,
            secrets: &self.secrets,
            stripped: &self.stripped,
            role_mapping: &self.role_mapping,
            target_roles: &self.target_roles,
            drop_subscriptions: self.drop_subscriptions,
            subscription_connections: &self.subscription_connections,
        }
    }
}

/// The options of an entry, with their values.
fn options_of(toc: &Toc, dump_id: i32) -> BTreeMap<String, String> {
    let definition = Dialect::of(toc).parse(toc.entry(dump_id).unwrap()).unwrap();
    super::inventory::own_options(&definition)
        .iter()
        .filter_map(option)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn definition_of(toc: &Toc, dump_id: i32) -> &str {
    toc.entry(dump_id)
        .unwrap()
        .definition
        .as_ref()
        .and_then(Text::to_str)
        .unwrap()
}

fn exposed(options: &BTreeMap<String, SecretString>) -> BTreeMap<String, String> {
    options
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
        .collect()
}

/// Whether these bytes stand anywhere in the archive.
fn holds(toc: &Toc, needle: &str) -> bool {
    memchr::memmem::find(&toc.to_bytes(), needle.as_bytes()).is_some()
}
