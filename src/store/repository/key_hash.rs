//! A key of the store in 16 bytes, for sets of many keys.

/// First half of a BLAKE3 hash. Nobody can choose two keys with the same one, and by chance there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyHash([u8; 16]);

impl KeyHash {
    pub(super) fn of(key: &str) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
        Self(half)
    }
}
