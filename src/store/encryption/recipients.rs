//! To whom a backup is encrypted.

use std::collections::BTreeMap;
use std::io::Write as _;

use age::x25519::Recipient;

/// Most recipients of one backup: each adds 98 bytes to every object and every chunk.
pub const MOST_RECIPIENTS: usize = 32;

/// What age adds for one recipient.
const BYTES_PER_RECIPIENT: u64 = 98;

/// More than the rest of a header takes: the version, one stanza that means nothing, the MAC, and the nonce.
const BYTES_PER_FILE: u64 = 512;

/// Bytes of content in one block of an age file, and what age adds to it.
const BLOCK_BYTES: u64 = 64 * 1024;
const BYTES_PER_BLOCK: u64 = 16;

/// Says that the key of names is one for encrypted chunks (BLAKE3, `derive_key`).
const NAME_CONTEXT: &str = "pgrescue 2026-01 names of encrypted chunks";

/// Something cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// A recipient cannot be used. Its text is left out: it may be a secret key that was put in the wrong place.
    #[error("recipient {number} is no X25519 public key of age")]
    Recipient {
        /// Its place, from 1.
        number: usize,
    },
    /// There are none, or too many.
    #[error("{found} recipients are given; 1 to {MOST_RECIPIENTS} can be used")]
    Count {
        /// How many.
        found: usize,
    },
    /// The age library failed.
    #[error("age cannot encrypt: {0}")]
    Age(#[from] age::EncryptError),
    /// The result could not be kept.
    #[error("the encrypted bytes cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// A set of public keys, in the order of their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients {
    by_text: BTreeMap<String, Recipient>,
}

impl Recipients {
    /// Takes public keys (`age1…`), in any order.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, EncryptionError> {
        let mut by_text = BTreeMap::new();
        for (at, text) in texts.iter().enumerate() {
            let recipient: Result<Recipient, _> = text.as_ref().parse();
            let recipient = recipient.map_err(|_| EncryptionError::Recipient { number: at + 1 })?;
            by_text.insert(recipient.to_string(), recipient);
        }
        if by_text.is_empty() || by_text.len() > MOST_RECIPIENTS {
            return Err(EncryptionError::Count { found: by_text.len() });
        }
        Ok(Self { by_text })
    }

    /// Their texts, sorted.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.by_text.keys().cloned().collect()
    }

    /// The key of the names of chunks that are encrypted to these recipients: another for every set, and none of them
    /// the repository's own. So a chunk that others can read, or everybody, is never taken for one of this backup.
    #[must_use]
    pub fn name_key(&self, hash_key: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(NAME_CONTEXT);
        hasher.update(hash_key);
        for text in self.by_text.keys() {
            hasher.update(text.as_bytes());
            hasher.update(b"\n");
        }
        *hasher.finalize().as_bytes()
    }

    /// One age file with this content.
    pub fn encrypt(&self, content: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let mut file = Vec::new();
        let bound = usize::try_from(self.bound(content.len() as u64)).unwrap_or(usize::MAX);
        file.try_reserve_exact(bound).map_err(std::io::Error::other)?;
        let mut writer = self.encryptor()?.wrap_output(&mut file)?;
        writer.write_all(content)?;
        writer.finish()?;
        Ok(file)
    }

    /// Most bytes of an age file with content of this length.
    #[must_use]
    pub fn bound(&self, bytes: u64) -> u64 {
        let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
        let recipients = self.by_text.len() as u64 * BYTES_PER_RECIPIENT;
        bytes
            .saturating_add(blocks.saturating_mul(BYTES_PER_BLOCK))
            .saturating_add(recipients + BYTES_PER_FILE)
    }

    pub(super) fn encryptor(&self) -> Result<age::Encryptor, age::EncryptError> {
        age::Encryptor::with_recipients(self.by_text.values().map(|recipient| recipient as &dyn age::Recipient))
    }
}
