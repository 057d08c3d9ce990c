//! Client-side encryption of what is stored, with age (`age-encryption.org/v1`, X25519). Public keys encrypt, and are
//! all that a backup has; identities decrypt, and are where something is read that holds rows. The store's own
//! encryption is another matter (`s3`).

mod failure;
mod identities;
mod recipients;
mod stream;

use std::sync::Arc;

pub use failure::{identity_missing, identity_wrong};
pub(in crate::store) use identities::Unreadable;
pub use identities::{Identities, IdentityError};
pub use recipients::{EncryptionError, MOST_RECIPIENTS, Recipients};
pub use stream::{create, decrypted};

use super::manifest::ObjectManifest;
use super::{ByteStream, Store, StoreError, verified};

/// What follows the key of an object that is an age file.
pub const SUFFIX: &str = ".age";

/// The content of an object of a backup, decrypted where there are identities: give them where, and only where, the
/// manifest says that the backup is encrypted. What was read may be used only after the stream has ended without an
/// error.
pub async fn content(
    store: &dyn Store,
    object: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<ByteStream, StoreError> {
    let stored = verified(store.read(&object.key, None).await?, &object.stored());
    match identities {
        None => Ok(stored),
        Some(identities) => decrypted(stored, &object.key, identities).await,
    }
}

/// What is wrong with an age file, without a word about its content.
fn problem_of(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ends before the age file in it does".to_owned(),
        std::io::ErrorKind::InvalidData => {
            "a block of the age file was changed, or moved, or its end is missing".to_owned()
        }
        _ => format!("it cannot be decrypted ({error})"),
    }
}

/// Why an age file cannot be begun; `None` where no identity fits.
fn problem_of_header(error: &age::DecryptError) -> Option<String> {
    match error {
        age::DecryptError::NoMatchingKeys => None,
        age::DecryptError::Io(error) => Some(problem_of(error)),
        age::DecryptError::UnknownFormat => Some("it is no age file of version 1".to_owned()),
        _ => Some("the header of the age file was changed".to_owned()),
    }
}

/// Longest header of an age file that is read: the most recipients fit in it.
const HEADER_LIMIT_BYTES: usize = 64 * 1024;

/// Whether these bytes hold a header of age with the 16 bytes that belong to it.
fn has_header(bytes: &[u8]) -> bool {
    let mac = bytes.windows(5).position(|window| window == b"\n--- ");
    let end = mac.and_then(|at| Some(at + 5 + bytes.get(at + 5..)?.iter().position(|byte| *byte == b'\n')?));
    end.is_some_and(|end| bytes.len() > end + 16)
}

#[cfg(test)]
mod tests;
