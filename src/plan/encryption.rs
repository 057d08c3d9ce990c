//! Client-side encryption: to whom a backup is encrypted, and which Secret opens one.

use std::collections::BTreeSet;

use age::x25519;
use bech32::FromBase32 as _;
use serde::{Deserialize, Serialize};

use super::connection::{invalid, key_ref};
use super::refusal::Refusal;
use super::storage::StoragePlan;
use crate::api::connection::KeyRef;
use crate::api::restore::Decryption;
use crate::api::storage::{AgeEncryption, Encryption};

/// Most recipients of one backup: each adds 98 bytes to every object and every chunk.
pub const MOST_RECIPIENTS: usize = 32;

/// Encrypts before anything leaves the agent. It holds public keys alone.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionPlan {
    /// X25519 public keys of age, sorted.
    pub recipients: Vec<String>,
}

/// Validates the recipients. What is given as one is shown in no sentence: it may be a secret key.
pub fn plan(encryption: &Encryption, field: &str) -> Result<EncryptionPlan, Refusal> {
    let Encryption {
        age: AgeEncryption { recipients },
    } = encryption;
    let field = format!("{field}.age.recipients");
    let mut sorted = BTreeSet::new();
    for (at, text) in recipients.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if text.trim().to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err(invalid(&field, "is a secret key, which could read every backup").hint(
                "Give its public key, which begins with age1 and which `age-keygen -y` prints. The secret key has been \
                 where it does not belong: make a new one.",
            ));
        }
        let recipient: x25519::Recipient = text.parse().map_err(|_| {
            invalid(&field, "is no X25519 public key of age")
                .hint("Give what age-keygen prints as \"public key\"; it begins with age1 and has 62 characters.")
        })?;
        if is_low_order(text) {
            return Err(invalid(
                &field,
                "is a point of low order: what is encrypted to it, everybody can read",
            )
            .hint("Make a key with age-keygen and give what it prints as \"public key\"."));
        }
        sorted.insert(recipient.to_string());
    }
    if sorted.is_empty() {
        return Err(invalid(&field, "names nobody who could read the backup")
            .hint("Give at least one public key, or leave encryption out."));
    }
    if sorted.len() > MOST_RECIPIENTS {
        let count = sorted.len();
        return Err(invalid(&field, &format!("has {count} entries")).hint(format!(
            "Give {MOST_RECIPIENTS} at most: each makes every object a little larger."
        )));
    }
    Ok(EncryptionPlan {
        recipients: sorted.into_iter().collect(),
    })
}

/// Whether every secret that is shared with this public key is zero (RFC 7748, section 6.1), which age ends the process
/// for.
fn is_low_order(recipient: &str) -> bool {
    let decoded = bech32::decode(recipient).and_then(|(_, data, _)| Vec::<u8>::from_base32(&data));
    let point = decoded.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    point.is_none_or(|point| x25519_dalek::x25519([1; 32], point) == [0; 32])
}

/// Validates where the identity is. It has a Secret of its own: pods that make backups mount the Secret of the storage
/// as a whole.
pub fn identity(decryption: &Decryption, storage: &StoragePlan, field: &str) -> Result<KeyRef, Refusal> {
    let field = format!("{field}.age.identitySecretRef");
    let identity = key_ref(&decryption.age.identity_secret_ref, &field)?;
    if let StoragePlan::S3(s3) = storage
        && s3.credentials_secret.as_ref() == Some(&identity.name)
    {
        return Err(invalid(
            &format!("{field}.name"),
            &format!(
                "is {:?}, the Secret with the credentials of the storage, which every backup's pod mounts",
                identity.name
            ),
        )
        .hint("Put the identity into a Secret of its own: no backup may hold a key that reads backups."));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::storage::S3Plan;

    const ONE: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    const OTHER: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";

    fn planned(recipients: &[&str]) -> Result<EncryptionPlan, Refusal> {
        let age = AgeEncryption {
            recipients: recipients.iter().copied().map(str::to_owned).collect(),
        };
        plan(&Encryption { age }, "spec.storage.encryption")
    }

    #[test]
    fn recipients_are_a_set_whatever_their_order() {
        let plan = planned(&[ONE, OTHER, ONE]).unwrap();
        assert_eq!(plan.recipients, [OTHER, ONE]);
        assert_eq!(planned(&[OTHER, ONE]).unwrap(), plan);
    }

    #[test]
    fn the_sentences_of_refused_recipients_help() {
        let many: Vec<String> = (0..=MOST_RECIPIENTS)
            .map(|_| x25519::Identity::generate().to_public().to_string())
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let refused = |recipients: &[&str]| planned(recipients).unwrap_err().sentence();
        insta::assert_snapshot!(
            [
                refused(&[]),
                refused(&[ONE, "age1"]),
                refused(&["ssh-ed25519 AAAA"]),
                refused(&many),
                refused(&["AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"]),
            ]
            .join("\n")
        );
    }

    #[test]
    fn points_of_low_order_are_refused() {
        use bech32::{ToBase32 as _, Variant};
        let mut one = [0; 32];
        one[0] = 1;
        // p - 1, where p = 2^255 - 19
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        for point in [[0; 32], one, minus_one] {
            let text = bech32::encode("age", point.to_base32(), Variant::Bech32).unwrap();
            let refusal = planned(&[ONE, &text]).unwrap_err();
            assert!(
                refusal.message.contains("recipients[1] is a point of low order"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn no_sentence_repeats_a_secret_key() {
        use secrecy::ExposeSecret as _;
        let identity = x25519::Identity::generate().to_string();
        let secret = identity.expose_secret();
        let cut = &secret[..secret.len() - 1];
        for text in [secret, &secret.to_lowercase(), &format!(" {secret}"), cut] {
            let refusal = planned(&[ONE, text]).unwrap_err();
            let shown = format!("{refusal:?}").to_ascii_uppercase();
            assert!(!shown.contains("AGE-SECRET-KEY-1"), "{shown}");
            assert!(refusal.message.contains("recipients[1] is a secret key"), "{refusal}");
        }
    }

    #[test]
    fn an_identity_does_not_stand_beside_the_credentials_of_the_storage() {
        let decryption: Decryption =
            serde_saphyr::from_str("{age: {identitySecretRef: {name: bucket, key: identity.txt}}}").unwrap();
        let storage = |secret: &str| {
            StoragePlan::S3(S3Plan {
                credentials_secret: Some(secret.into()),
                ..S3Plan::default()
            })
        };
        assert!(identity(&decryption, &storage("other"), "spec.source.decryption").is_ok());
        let refusal = identity(&decryption, &storage("bucket"), "spec.source.decryption").unwrap_err();
        insta::assert_snapshot!(refusal.sentence());
    }
}
