//! What is said where an encrypted backup cannot be read.

use crate::api::reasons;
use crate::plan::Refusal;

/// A restore or a check has no identity for an encrypted backup.
#[must_use]
pub fn identity_missing(snapshot: &str, recipients: &[String]) -> Refusal {
    let message = format!(
        "The backup {snapshot:?} is encrypted to {}, and no identity was given.",
        listed(recipients)
    );
    Refusal::permanent(reasons::IDENTITY_MISSING, message)
        .object(snapshot)
        .hint("Put the age identity of one of them into a Secret and name it in spec.source.decryption.age.identitySecretRef, or give the file in --identity-file.")
}

/// None of the identities is one of the backup's.
#[must_use]
pub fn identity_wrong(snapshot: &str, recipients: &[String]) -> Refusal {
    let message = format!(
        "The backup {snapshot:?} is encrypted to {}, and none of the given identities opens it.",
        listed(recipients)
    );
    Refusal::permanent(reasons::IDENTITY_WRONG, message)
        .object(snapshot)
        .hint("Give the identity whose public key (`age-keygen -y`) is one of them; nothing was changed.")
}

fn listed(recipients: &[String]) -> String {
    recipients.join(", ")
}
