//! Turns the option changes of a rule into values.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::request::{Changes, ForeignRewriteRequest};
use crate::api::foreign_servers::OptionChanges;
use crate::api::reasons;
use crate::plan::Refusal;

/// The keys of a Secret, each an option.
pub(super) fn secret<'a>(
    request: &ForeignRewriteRequest<'a>,
    name: &str,
) -> Result<&'a BTreeMap<String, SecretString>, Refusal> {
    request.secrets.get(name).ok_or_else(|| {
        Refusal::temporary(reasons::REFERENCE_MISSING, format!("Secret {name:?} does not exist"))
            .object(format!("Secret/{name}"))
            .hint(format!(
                "Create the Secret {name:?} in the namespace of the resource; its keys become options."
            ))
    })
}

/// The values of a rule's changes. `object` is whom they are for.
pub(super) fn resolve(
    changes: Option<&OptionChanges>,
    request: &ForeignRewriteRequest<'_>,
    object: &str,
) -> Result<Changes, Refusal> {
    let Some(OptionChanges { set, secret_ref, drop }) = changes else {
        return Ok(Changes::default());
    };
    let mut values: BTreeMap<_, _> = set
        .iter()
        .map(|(name, value)| (name.clone(), SecretString::from(value.clone())))
        .collect();
    if let Some(reference) = secret_ref {
        for (name, value) in secret(request, &reference.name)? {
            if values.insert(name.clone(), value.clone()).is_some() {
                return Err(twice(object, name, &format!("set and the Secret {:?}", reference.name)));
            }
        }
    }
    if let Some(name) = drop.iter().find(|name| values.contains_key(*name)) {
        return Err(twice(object, name, "both set and drop"));
    }
    Ok(Changes {
        set: values,
        drop: drop.iter().cloned().collect(),
    })
}

fn twice(object: &str, option: &str, places: &str) -> Refusal {
    Refusal::permanent(
        reasons::INVALID_SPEC,
        format!("the rule for {object} names the option {option:?} in {places}"),
    )
    .object(object)
    .hint("Name each option once.")
}

impl Changes {
    /// Adds the changes of another rule. The same option must not be changed twice.
    pub(super) fn add(&mut self, other: Self, object: &str) -> Result<(), Refusal> {
        let Self { set, drop } = other;
        for name in set.keys().chain(&drop) {
            if self.names(name) {
                return Err(twice(object, name, "two rules"));
            }
        }
        self.set.extend(set);
        self.drop.extend(drop);
        Ok(())
    }

    /// Whether the option is given a value or dropped.
    pub(super) fn names(&self, option: &str) -> bool {
        self.set.contains_key(option) || self.drop.contains(option)
    }
}
