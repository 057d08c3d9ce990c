//! The Secrets and ConfigMaps that a plan names: what a pod mounts, and what the agent waits for.

use std::collections::BTreeSet;

use super::Plan;
use super::connection::{ConnectionPlan, TextSource};
use super::storage::StoragePlan;
use crate::api::connection::KeyRef;
use crate::api::foreign_servers::{ForeignServerRule, ForeignTableRule, OptionChanges, UserMappingRule};

/// Key of a subscription's connection string in its Secret.
pub const CONNINFO_KEY: &str = "conninfo";
/// Names under which a Secret may keep the access key of S3: that of the AWS tools, and that of CloudNativePG's
/// examples.
pub const S3_ACCESS_KEY: [&str; 2] = ["AWS_ACCESS_KEY_ID", "ACCESS_KEY_ID"];
/// The same for the secret key.
pub const S3_SECRET_KEY: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "ACCESS_SECRET_KEY"];

/// Names of Secrets and ConfigMaps, and the keys that must be in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferencedNames {
    /// Every Secret.
    pub secrets: BTreeSet<String>,
    /// Every ConfigMap.
    pub config_maps: BTreeSet<String>,
    /// Keys of Secrets that must be there.
    pub secret_keys: BTreeSet<KeyRef>,
    /// Secrets with keys of which one must be there.
    pub secret_key_choices: BTreeSet<(String, [&'static str; 2])>,
    /// Keys of ConfigMaps that must be there.
    pub config_map_keys: BTreeSet<KeyRef>,
}

impl ReferencedNames {
    /// Everything that the plan names.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut names = Self::default();
        match plan {
            Plan::Backup(plan) => {
                names.add_connection(&plan.connection);
                names.add_storage(&plan.storage);
            }
            Plan::Restore(plan) => {
                names.add_connection(&plan.target);
                names.add_storage(&plan.source.storage);
                // Of all plans, a restore alone names an identity: no pod that writes backups can read them.
                plan.source.identity.iter().for_each(|key| names.add_secret_key(key));
                plan.foreign_servers.iter().for_each(|rule| names.add_rule(rule));
                for secret in plan.subscription_secrets.values() {
                    names.add_secret_key(&KeyRef {
                        name: secret.clone(),
                        key: CONNINFO_KEY.into(),
                    });
                }
            }
            Plan::DeleteArtifact(plan) | Plan::CleanUpBackup(plan) => names.add_storage(&plan.storage),
            Plan::CleanUpRestore(plan) => names.add_connection(&plan.target),
        }
        names
    }

    /// What the rules for foreign servers name.
    #[must_use]
    pub fn of_rules(rules: &[ForeignServerRule]) -> Self {
        let mut names = Self::default();
        for rule in rules {
            names.add_rule(rule);
        }
        names
    }

    fn add_connection(&mut self, connection: &ConnectionPlan) {
        let ConnectionPlan {
            secret,
            host: _,
            port: _,
            user: _,
            database: _,
            password,
            tls_mode: _,
            root_certificate,
            client_certificate,
            client_key,
            parameters: _,
        } = connection;
        self.secrets.extend(secret.iter().cloned());
        [password, client_key]
            .into_iter()
            .flatten()
            .for_each(|key| self.add_secret_key(key));
        [root_certificate, client_certificate]
            .into_iter()
            .flatten()
            .for_each(|source| self.add_text(source));
    }

    fn add_storage(&mut self, storage: &StoragePlan) {
        match storage {
            StoragePlan::S3(s3) => {
                if let Some(secret) = &s3.credentials_secret {
                    self.secrets.insert(secret.clone());
                    let choices = [S3_ACCESS_KEY, S3_SECRET_KEY].map(|keys| (secret.clone(), keys));
                    self.secret_key_choices.extend(choices);
                }
                s3.ca_bundle.iter().for_each(|source| self.add_text(source));
            }
            StoragePlan::Volume { .. } | StoragePlan::Folder { .. } => {}
        }
    }

    fn add_rule(&mut self, rule: &ForeignServerRule) {
        let ForeignServerRule {
            matches: _,
            options,
            user_mappings,
            foreign_tables,
            wrapper_options,
        } = rule;
        let of_tables = foreign_tables.iter().map(
            |ForeignTableRule {
                 schema: _,
                 name: _,
                 column: _,
                 options,
             }| options,
        );
        for OptionChanges {
            set: _,
            secret_ref,
            drop: _,
        } in options.iter().chain(wrapper_options).chain(of_tables)
        {
            self.secrets.extend(secret_ref.iter().map(|secret| secret.name.clone()));
        }
        for UserMappingRule {
            local_user: _,
            secret_ref,
            rename_to: _,
            keep: _,
            drop: _,
        } in user_mappings
        {
            self.secrets.extend(secret_ref.iter().map(|secret| secret.name.clone()));
        }
    }

    fn add_text(&mut self, source: &TextSource) {
        match source {
            TextSource::Inline(_) => {}
            TextSource::Secret(key) => self.add_secret_key(key),
            TextSource::ConfigMap(key) => {
                self.config_maps.insert(key.name.clone());
                self.config_map_keys.insert(key.clone());
            }
        }
    }

    fn add_secret_key(&mut self, key: &KeyRef) {
        self.secrets.insert(key.name.clone());
        self.secret_keys.insert(key.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_and_key_of_a_connection_is_named_once() {
        let key = |name: &str, key: &str| KeyRef {
            name: name.into(),
            key: key.into(),
        };
        let mut names = ReferencedNames::default();
        names.add_connection(&ConnectionPlan {
            secret: Some("db".into()),
            client_key: Some(key("tls", "tls.key")),
            client_certificate: Some(TextSource::Secret(key("tls", "tls.crt"))),
            root_certificate: Some(TextSource::ConfigMap(key("ca", "ca.crt"))),
            ..ConnectionPlan::default()
        });
        assert_eq!(names.secrets, BTreeSet::from(["db".into(), "tls".into()]));
        assert_eq!(names.config_maps, BTreeSet::from(["ca".into()]));
        assert_eq!(
            names.secret_keys,
            BTreeSet::from([key("tls", "tls.crt"), key("tls", "tls.key")])
        );
    }
}
