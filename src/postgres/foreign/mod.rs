//! Foreign servers in archives: which there are, what of them is secret, and how they move to another environment.
//!
//! Definitions are read and changed as syntax trees of PostgreSQL's own parser (`pg_query`) and never as text: an
//! option's name may be quoted, its value may hold anything. `decide` is pure and knows no archive; `strip` and
//! `rewrite` change an archive's table of contents. Statements with secrets exist in memory alone.

mod carriers;
mod columns;
mod decide;
mod dependents;
mod error;
mod inventory;
mod mappings;
mod masking;
mod needed;
mod options;
mod request;
mod rewrite;
mod roles;
mod rules;
mod secrecy;
mod server;
mod statement;
mod strip;
mod stripped;
mod subscription;
mod template;

pub use carriers::{plain_credentials, setting_credential};
pub use decide::decide;
pub use error::ForeignError;
pub use inventory::{Inventory, inventory, subscriptions};
pub use request::{
    Changes, ForeignDecision, ForeignRewriteRequest, MappingDecision, ServerDecision, SubscriptionDecision,
    TableDecision,
};
pub use rewrite::{ForeignRewrite, RestoredServer, rewrite};
pub use roles::{map_roles, named_roles};
pub use secrecy::{MASK, OptionOf, is_secret};
pub use server::{ForeignServer, ForeignTable, LocalUser, ShownOptions, UserMapping};
pub use strip::{mappings_without_options, strip_credentials};
pub use stripped::{CredentialHolder, StrippedCredential, with_stripped};
pub use template::template;

#[cfg(test)]
mod tests;
