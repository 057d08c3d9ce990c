//! Who can read a backup.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::str::FromStr as _;

use age::x25519::Identity;
use age::{DecryptError, Decryptor};
use secrecy::{ExposeSecret as _, SecretString};

use super::{problem_of, problem_of_header};

/// Begins every X25519 identity.
const IDENTITY_PREFIX: &str = "AGE-SECRET-KEY-1";

/// Secret keys. Their text is shown nowhere.
pub struct Identities {
    keys: Vec<Identity>,
    /// Their public keys.
    public: BTreeSet<String>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the identities of {:?}", self.public)
    }
}

/// A text that is no identity file. Nothing of the text is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A line cannot be used.
    #[error("line {line} is neither a comment nor an X25519 identity of age, which begins with {IDENTITY_PREFIX}")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// The file is itself encrypted.
    #[error("it is encrypted with a passphrase or a key of its own")]
    Encrypted,
    /// It is a public key.
    #[error("line {line} is a public key; the identity is the other half, which begins with {IDENTITY_PREFIX}")]
    PublicKey {
        /// Its number, from 1.
        line: usize,
    },
    /// It has comments at most.
    #[error("it holds no identity")]
    Empty,
}

/// Why an age file in memory could not be decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Unreadable {
    /// None of the identities is one of its recipients.
    NoIdentityFits,
    /// It is no whole age file.
    Damaged(String),
}

impl Identities {
    /// Reads an identity file as `age-keygen` writes it: identities, comments and empty lines.
    pub fn parse(text: &SecretString) -> Result<Self, IdentityError> {
        let text = text.expose_secret();
        if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") {
            return Err(IdentityError::Encrypted);
        }
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, text) = (at + 1, line.trim());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if age::x25519::Recipient::from_str(text).is_ok() {
                return Err(IdentityError::PublicKey { line });
            }
            keys.push(Identity::from_str(text).map_err(|_| IdentityError::Line { line })?);
        }
        if keys.is_empty() {
            return Err(IdentityError::Empty);
        }
        let public = keys.iter().map(|key| key.to_public().to_string()).collect();
        Ok(Self { keys, public })
    }

    /// Whether one of them belongs to one of these public keys. The file itself has the last word.
    pub fn fit<T: AsRef<str>>(&self, recipients: &[T]) -> bool {
        recipients.iter().any(|text| self.public.contains(text.as_ref()))
    }

    /// The content of an age file in memory, and of nothing behind it.
    pub(in crate::store) fn decrypt(&self, file: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let refuse = |error: &DecryptError| match problem_of_header(error) {
            None => Unreadable::NoIdentityFits,
            Some(problem) => Unreadable::Damaged(problem),
        };
        let damaged = |error: std::io::Error| Unreadable::Damaged(problem_of(&error));
        let decryptor = Decryptor::new_buffered(file).map_err(|error| refuse(&error))?;
        let mut reader = decryptor.decrypt(self.each()).map_err(|error| refuse(&error))?;
        let mut content = Vec::new();
        content
            .try_reserve_exact(file.len())
            .map_err(|error| damaged(std::io::Error::other(error)))?;
        reader.read_to_end(&mut content).map_err(damaged)?;
        Ok(content)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| key as &dyn age::Identity)
    }
}
