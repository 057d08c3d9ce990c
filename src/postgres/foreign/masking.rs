//! Options as people may see them.

use std::collections::BTreeMap;

use super::request::Changes;
use super::secrecy::{MASK, OptionOf, is_secret};
use super::server::ShownOptions;
use crate::api::foreign_servers::OptionChanges;

/// Options with secret values masked, as a status shows them.
pub(super) fn masked(options: &ShownOptions) -> BTreeMap<String, String> {
    options
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().unwrap_or_else(|| MASK.into())))
        .collect()
}

/// The options after a change. A value that came from a Secret is a secret, whatever its name.
pub(super) fn after(
    before: &ShownOptions,
    changes: &Changes,
    rule: Option<&OptionChanges>,
    wrapper: &str,
) -> ShownOptions {
    let mut after = before.clone();
    after.retain(|name, _| !changes.drop.contains(name));
    for name in changes.set.keys() {
        let inline = rule.and_then(|rule| rule.set.get(name));
        let shown = inline.filter(|value| !is_secret(OptionOf::Server(wrapper), name, value));
        after.insert(name.clone(), shown.cloned());
    }
    after
}
